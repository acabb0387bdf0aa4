"""What is cached between calls, and for how long."""

import gc
import weakref

import pytest
import torch

from swin_mm.ops.cache import cached


@pytest.fixture
def made():
    """A function of which two results are kept, and the arguments it was called with."""
    calls = []

    @cached(2)
    def make(number):
        calls.append(number)
        return torch.full((3,), number)

    return make, calls


@pytest.fixture
def capture(monkeypatch):
    """Switches what PyTorch says of CUDA graphs."""

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)

    def switch(is_on):
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: is_on)

    return switch


def test_the_latest_are_kept(made):
    make, calls = made
    for number in (1, 2, 1, 3, 1, 2):
        assert make(number).tolist() == [number] * 3
    assert calls == [1, 2, 3, 2]


def test_they_are_no_inference_tensors(made):
    with torch.inference_mode():
        assert not made[0](1).is_inference()


def test_what_a_graph_reads_stays(made, capture):
    make, _ = made
    capture(False)
    read, unread = (weakref.ref(make(number)) for number in (1, 2))
    capture(True)
    assert make(1) is read()
    capture(False)
    make(3), make(4)
    gc.collect()
    assert read() is not None and unread() is None
    capture(True)
    assert make(1) is read()


def test_what_is_made_in_a_capture_belongs_to_the_graph(made, capture):
    """It has no values until the graph runs, and lies in the graph's memory."""
    make, calls = made
    capture(True)
    make(1), make(1)
    capture(False)
    make(1), make(1)
    assert calls == [1, 1, 1]


def test_errors_are_not_kept():
    calls = []

    @cached(2)
    def fail(number):
        calls.append(number)
        raise ValueError("no")

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            fail(1)
    assert calls == [1, 1]
