"""Being here, it lets every test import the helpers in this folder, such as `toy_task`."""

import functools
import gc
import importlib.util
import os
import random

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    # Triton reads it when it is imported, which mmdet does on its way.
    os.environ.setdefault("TRITON_INTERPRET", "1")

from mmengine.config import config
from mmengine.config import utils as config_utils
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer

import swin_mm  # noqa: F401  (without a compiled mmcv, mmdet can be imported only after it)

if os.environ.get("TRITON_INTERPRET") == "1" and importlib.util.find_spec("triton"):
    from round_bfloat16 import mend_interpreter

    mend_interpreter()


# At the first backward pass PyTorch looks for devices, and where it finds one, forks can run none.
# Recording a graph, as export does, counts as a GPU; so the first is here.
torch.ones(1, requires_grad=True).sum().backward()


def keep_results(function):
    """Calls a function once for the same arguments."""
    results = {}

    @functools.wraps(function)
    def call(*args, **kwargs):
        key = repr((args, kwargs))
        if key not in results:
            results[key] = function(*args, **kwargs)
        return results[key]

    return call


# mmengine reads all metafiles of mmdet or mmseg for each base of a config that is theirs, and has
# yapf format the whole config for each checkpoint: a third of the time of many tests.
config_utils.load = keep_results(config_utils.load)
if hasattr(config, "FormatCode"):  # the forks format otherwise
    config.FormatCode = keep_results(config.FormatCode)


def pytest_collection_finish():
    """What has been imported stays: collecting garbage need not go through it again and again."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items):
    """Files with slow tests come first, so that at the end no worker waits long for another."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def default_scope_of_its_own():
    """No test looks types up in the scope that another has left as the default."""
    DefaultScope._instance_dict.clear()
    yield
    DefaultScope._instance_dict.clear()


@pytest.fixture(autouse=True)
def global_objects_of_its_own():
    """No test has another's logger and its level, or what a run of the same second has left."""
    for logger in MMLogger._instance_dict.values():
        for handler in logger.handlers:
            handler.close()
    # Each class of visualizers, such as mmdet's, keeps its own.
    for manager in (MMLogger, MessageHub, Visualizer, *Visualizer.__subclasses__()):
        manager._instance_dict.clear()
    yield
    os.environ.pop("LOCAL_RANK", None)  # set by commands


@pytest.fixture(scope="session")
def tiny_shapes(tmp_path_factory):
    """The smallest of the built-in data, to be read alone: 12 images to train on, 6 to validate."""
    from swin_mm.datasets.shapes import write_shapes  # imports frameworks

    return write_shapes(tmp_path_factory.mktemp("tiny_shapes"), "tiny")


@pytest.fixture(autouse=True)
def random_numbers_of_its_own():
    """Transforms draw from the global generators: no test depends on how many ran before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
