"""Which errors are told in one line, and what the line is."""

from multiprocessing import Pipe
from pathlib import Path

import pytest
import torch
from mmdet.datasets.transforms import Mosaic
from mmengine.registry import MODELS, TRANSFORMS
from mmengine.structures import InstanceData
from torch import nn
from torch.utils.data import DataLoader

from swin_mm.checkpoint import CheckpointError
from swin_mm.cli.errors import explain_error
from swin_mm.configs import ConfigError
from swin_mm.datasets.check import DatasetError
from swin_mm.datasets.shapes.presets import get_preset


def caught(function):
    try:
        function()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def raise_it(error, cause=None):
    raise error from cause


@pytest.mark.parametrize("kind", [ConfigError, DatasetError, CheckpointError])
def test_our_errors_are_told(kind):
    assert explain_error(caught(lambda: raise_it(kind("a  b")))) == "a  b"


def test_an_error_of_several_lines_is_told_in_one():
    assert explain_error(caught(lambda: raise_it(ConfigError("a  \n b")))) == "a b"


def test_our_error_is_found_below_another():
    error = caught(lambda: raise_it(RuntimeError("outer"), cause=DatasetError("inner")))
    assert explain_error(error) == "inner"


def test_refusals_of_our_code_are_told_and_those_of_others_are_not():
    assert explain_error(caught(lambda: get_preset("x"))).startswith("the presets of the shapes")
    assert explain_error(caught(lambda: int("x"))) is None


@pytest.mark.parametrize(
    "error", [RuntimeError("shape"), TypeError("x"), AssertionError(), KeyError("x")], ids=repr
)
def test_faults_of_the_program_are_not_told(error):
    assert explain_error(caught(lambda: raise_it(error))) is None


def test_errors_of_the_system_are_told():
    error = caught(Path("/nowhere/file").read_bytes)
    assert explain_error(error) == "[Errno 2] No such file or directory: '/nowhere/file'"


def test_error_of_the_system_that_code_dealt_with_is_not_told():
    def look_up():
        try:
            Path("/nowhere/file").read_bytes()
        except OSError:
            {}["key"]

    assert explain_error(caught(look_up)) is None


class Unreadable:
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return Path("/nowhere/image.png").read_bytes()


def test_error_of_a_loader_process_is_its_last_line():
    error = caught(lambda: next(iter(DataLoader(Unreadable(), num_workers=1))))
    message = explain_error(error)
    assert "\n" not in message
    assert message.endswith("No such file or directory: '/nowhere/image.png'")


class ErrorsTestNet(nn.Module):
    def __init__(self, depth=1):
        super().__init__()


class WiderErrorsTestNet(ErrorsTestNet):
    def __init__(self, width=2, **kwargs):
        super().__init__(**kwargs)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (dict(type=ErrorsTestNet, dept=3), "ErrorsTestNet takes no 'dept'; did you mean depth?"),
        (dict(type=WiderErrorsTestNet, dept=3), "WiderErrorsTestNet takes no 'dept'; did you mean"),
        (
            dict(type=WiderErrorsTestNet, wide=3),
            "WiderErrorsTestNet takes no 'wide'; did you",
        ),
        (dict(type=ErrorsTestNet, zzz=3), "ErrorsTestNet takes no 'zzz'"),
    ],
    ids=["own", "base", "beside", "none alike"],
)
def test_argument_that_a_type_refuses_is_told(settings, told):
    message = explain_error(caught(lambda: MODELS.build(settings)))
    assert message.startswith(f"the config does not fit: {told}") and "\n" not in message


def test_argument_that_a_loader_refuses_is_told():
    message = explain_error(caught(lambda: DataLoader([1], batchsize=2)))
    assert message == "the config does not fit: DataLoader takes no 'batchsize'"


def read_first(dataset, **settings):
    return caught(lambda: next(iter(DataLoader(dataset, **settings))))


class Failing(Unreadable):
    def __getitem__(self, index):
        assert index > 3


class Unwrapped(Unreadable):
    def __getitem__(self, index):
        return Mosaic()({"img": None, "img_path": "a.png"})


def test_a_broken_connection_to_a_worker_is_its_end():
    """As a worker that is killed in the middle of a batch leaves it."""
    ours, theirs = Pipe()
    theirs.close()
    message = explain_error(caught(ours.recv))
    assert message.startswith("a worker of the data loader was ended from outside, often for lack")
    # Not every file that ends too early is one.
    assert explain_error(EOFError("no more")) is None


@pytest.mark.parametrize("workers", [0, 1])
def test_error_of_a_pipeline_is_told(workers):
    message = explain_error(read_first(Unwrapped(), num_workers=workers))
    assert message.startswith("Mosaic on a.png: ") and "'mix_results' in results" in message


@pytest.mark.parametrize("workers", [0, 1])
def test_error_of_a_data_set_is_told(workers):
    message = explain_error(read_first(Failing(), num_workers=workers))
    assert message.startswith("the data loader failed: AssertionError")


def test_failing_constructor_is_told_with_what_it_asserts():
    error = caught(lambda: TRANSFORMS.build(dict(type=Mosaic, img_scale=[640, 640])))
    message = explain_error(error)
    assert message.startswith("the config does not fit: Mosaic raises AssertionError: assert ")
    assert "isinstance(img_scale, tuple)" in message


def test_what_a_model_misses_in_a_sample_is_told():
    sample = InstanceData(bboxes=torch.zeros(1, 4))
    assert "needs 'masks' of an image, and the pipeline gives bboxes: " in explain_error(
        caught(lambda: sample.masks)
    )
    assert "needs 'img_shape': name it in meta_keys" in explain_error(
        caught(lambda: sample.metainfo["img_shape"])
    )
