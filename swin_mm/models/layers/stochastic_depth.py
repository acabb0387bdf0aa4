"""Stochastic depth that leaves out the work for the samples it drops."""

from collections.abc import Callable
from typing import Any

import torch
from mmcv.cnn.bricks import DropPath
from torch import Tensor

from swin_mm.models.layers.hooks import has_hooks, is_identity
from swin_mm.ops.setting import setting_of


def add_branch(
    x: Tensor,
    branch: Callable[[Tensor], Tensor],
    drop_path: Any,
    may_skip: bool = True,
) -> Tensor:
    """`x + drop_path(branch(x))`; on the CPU, `branch` gets only the samples that stay.

    Elsewhere the host would wait for the device to learn which stay. Samples are dropped as by
    mmcv's `DropPath` from the same seed. Where all are dropped, `branch` gets none, so its
    parameters have gradients of zero, as without this. `may_skip` says whether `branch` treats
    samples alone and draws no random numbers.

    Source:
        Huang et al., Deep Networks with Stochastic Depth, 2016; mmcv 2.1.0, `drop_path`.
    """
    if is_identity(drop_path) or not may_skip or not _can_skip_samples(x, drop_path):
        return x + drop_path(branch(x))
    keep_prob = 1 - drop_path.drop_prob
    noise = torch.rand(len(x), dtype=x.dtype)
    kept = (noise + keep_prob).floor().nonzero().flatten()
    if len(kept) == len(x):
        return torch.add(x, branch(x), alpha=1 / keep_prob)
    return x.index_add(0, kept, branch(x[kept]), alpha=1 / keep_prob)


def _can_skip_samples(x: Tensor, drop_path: Any) -> bool:
    setting = setting_of(x, needs_grad=False)
    return (
        x.device.type == "cpu"  # elsewhere the host would wait for the device
        and type(drop_path) is DropPath
        and not has_hooks(drop_path)
        and setting.autocast_dtype is None  # or noise would be in the dtype that it chooses
        and setting.graph == "eager"
        and not setting.is_transformed
        and not setting.under_dispatch_mode
    )
