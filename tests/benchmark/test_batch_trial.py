"""Trials of a batch: in a process of their own, within the memory they may have."""

import multiprocessing

import pytest
import torch

from swin_mm.benchmark import batch_trial
from swin_mm.benchmark.batch_trial import Request, Trial, TrialError, try_batch
from swin_mm.cli import find_batch_size
from swin_mm.cli.config import load_config
from swin_mm.cli.main import run_command
from swin_mm.configs import ConfigError

GIB = 2**30
SMALL = {
    "model.backbone.depths": (1, 1, 1, 1),
    "model.decode_head.channels": 16,
    "model.auxiliary_head.channels": 16,
}


def request(limit=64 * GIB, batch=2):
    cfg = load_config("upernet_swin_mini_shapes", SMALL)
    return Request(cfg, (64, 96), batch, "cpu", limit)


@pytest.fixture
def forked(monkeypatch):
    """Processes that start at once, since they import nothing."""
    context = multiprocessing.get_context("fork")
    monkeypatch.setattr(multiprocessing, "get_context", lambda kind: context)


def test_a_batch_that_fits():
    trial = try_batch(request())
    assert trial.batch == 2 and trial.fits
    # At the least PyTorch itself, and no more than this machine could have.
    assert 0.1 * GIB < trial.peak < 8 * GIB
    assert trial.images_per_second > 0


def test_a_process_that_takes_more_is_ended(forked):
    assert try_batch(request(limit=GIB // 10)) == Trial(2)


def test_other_faults_are_errors_with_their_reason(forked):
    with pytest.raises(TrialError, match="a batch of 3 failed: AttributeError: 'NoneType'"):
        try_batch(request(batch=3)._replace(cfg=None))


class Sender(list):
    send = list.append


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), Trial(2)),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), Trial(2)),
        (ValueError("Expected more than 1 value"), "ValueError: Expected more than 1 value"),
    ],
    ids=["GPU", "CPU", "other"],
)
def test_want_of_memory_is_no_error(monkeypatch, error, answer):
    def fail(request):
        raise error

    monkeypatch.setattr(batch_trial, "measure_steps", fail)
    monkeypatch.setattr(batch_trial, "_watch", lambda limit: None)
    sender = Sender()
    batch_trial._run(request(), sender)
    assert sender == [answer]


def test_steps_go_on_until_the_optimizer_has_its_state(monkeypatch):
    """As where float16's loss scale leaves out the first updates."""
    steps = []

    class Model:
        def train_step(self, batch, wrapper):
            steps.append(len(batch["inputs"]))
            if len(steps) == 5:
                wrapper.optimizer.state["p"] = 1

    class Wrapper:
        class optimizer:
            state = {}

    monkeypatch.setattr(batch_trial, "build_training", lambda cfg, device: (Model(), Wrapper))
    assert batch_trial.measure_steps(request()).fits
    assert steps == [2] * (5 + batch_trial.STEPS)


@pytest.fixture
def capacity(monkeypatch):
    """Trials without processes: a base of 1 GiB and half a GiB for each image."""
    requests = []

    def pretend(request):
        requests.append(request)
        needed = int((1 + 0.5 * request.batch) * GIB)
        fits = needed <= request.limit
        return Trial(request.batch, needed, 2.5) if fits else Trial(request.batch)

    monkeypatch.setattr(batch_trial, "try_batch", pretend)
    return requests


def test_command_prints_trials_and_lines(capacity, capsys):
    options = ["--memory", "10", "--device", "cpu", "--gpus", "2"]
    assert run_command("find-batch-size", ["mask_rcnn_swin_t", *options]) == 0
    text = capsys.readouterr().out
    assert "random images of 800x1344" in text and "10 GiB, of which 8% are left free" in text
    assert "  batch  16:   9.00 GiB, 2.50 images/s\n" in text
    assert "  batch  17: does not fit\n" in text
    assert "The largest batch that fits: 16. In the config:" in text
    lines = text.split("In the config:")[1].strip()
    assert lines.splitlines()[0] == "train_dataloader = dict(batch_size=16)"
    assert "lr=0.0002))  # 0.0001 for 16 images" in lines
    assert {request.size for request in capacity} == {(800, 1344)}
    assert capacity[0].limit == int(9.2 * GIB)


def test_command_says_where_it_stopped_and_where_nothing_fits(capacity, capsys):
    base = ["upernet_swin_mini_shapes", "--device", "cpu", "--size", "64x64"]
    assert find_batch_size.main([*base, "--memory", "50", "--max-batch", "4"]) == 0
    assert "fits: 4 (larger ones were not tried)" in capsys.readouterr().out
    assert {request.size for request in capacity} == {(64, 64)}
    assert find_batch_size.main([*base, "--memory", "1"]) == 1
    assert "Not even one image fits" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["mask_rcnn_swin_t"], "a CPU has no memory of its own: give --memory"),
        (["mask_rcnn_swin_mini_shapes", "--memory", "4"], "give the largest by --size HxW"),
    ],
    ids=["memory", "size"],
)
def test_what_has_to_be_said(capacity, options, message):
    with pytest.raises(ConfigError, match=message):
        find_batch_size.main([*options, "--device", "cpu"])
    assert not capacity


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_no_gpu():
    with pytest.raises(ConfigError, match="PyTorch finds no CUDA device"):
        find_batch_size.main(["mask_rcnn_swin_t", "--device", "cuda"])


@pytest.mark.parametrize("text", ["0", "-3", "much", "nan", "inf"])
def test_memory_that_makes_no_sense(text, capsys):
    with pytest.raises(SystemExit):
        find_batch_size.parse_args(["a.py", f"--memory={text}"])
    assert "must be a number of GiB above 0" in capsys.readouterr().err
