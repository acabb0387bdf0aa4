"""Sizes of maps as constants while a model is recorded for one size.

mmdet and mmcv keep the sizes of maps as tensors, and loop over them, split and reshape by them
(`deformable_detr.py`, `msdeformattn_pixel_decoder.py`, `multi_scale_deform_attn.py`). PyTorch's
exporter follows the values of tensors of one number alone, and takes longer ones for data.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses import fake_tensor
from torch.fx.experimental import proxy_tensor

LIMIT = "CONSTANT_NUMEL_LIMIT"
MOST = 64  # numbers of a tensor whose values are followed: two for each of the levels, and sums


@contextmanager
def constant_sizes() -> Iterator[None]:
    """Lets PyTorch's exporter follow the values of small tensors, for models of one size."""
    with ExitStack() as stack:
        for module in (fake_tensor, proxy_tensor):
            if hasattr(module, LIMIT):
                stack.enter_context(patch.object(module, LIMIT, MOST))
        stack.enter_context(patch.object(torch, "_shape_as_tensor", _shape_as_tensor))
        yield


def _shape_as_tensor(x: Tensor) -> Tensor:
    return torch.tensor(tuple(x.shape))
