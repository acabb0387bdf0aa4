"""Being here, it lets every test import the helpers in this folder, such as `toy_task`."""

import functools
import importlib.util
import os
import random

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    # Triton reads it when it is imported, which mmdet does on its way.
    os.environ.setdefault("TRITON_INTERPRET", "1")

from mmengine.config import utils as config_utils
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope

import swin_mm  # noqa: F401  (without a compiled mmcv, mmdet can be imported only after it)

if os.environ.get("TRITON_INTERPRET") == "1" and importlib.util.find_spec("triton"):
    from round_bfloat16 import mend_interpreter

    mend_interpreter()

# mmengine reads all metafiles of mmdet or mmseg again for each base in them: 0.15 s of a load.
config_utils._get_cfg_metainfo = functools.cache(config_utils._get_cfg_metainfo)


@pytest.fixture(autouse=True)
def default_scope_of_its_own():
    """No test looks types up in the scope that another has left as the default."""
    DefaultScope._instance_dict.clear()
    yield
    DefaultScope._instance_dict.clear()


@pytest.fixture(autouse=True)
def logger_of_its_own():
    """Runners and commands leave a logger at the level they were given: no test has another's."""
    MMLogger._instance_dict.clear()


@pytest.fixture(autouse=True)
def random_numbers_of_its_own():
    """Transforms draw from the global generators: no test depends on how many ran before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
