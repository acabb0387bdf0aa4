"""Stochastic depth that leaves out the work for the samples it drops."""

from collections.abc import Callable

import torch
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from swin_mm.models.layers.linear import is_idle, is_seen
from swin_mm.ops.transforms import opaque_refusal


def add_branch(x: Tensor, branch: Callable[[Tensor], Tensor], drop_path: nn.Module) -> Tensor:
    """`x + drop_path(branch(x))`; on the CPU, `branch` takes the samples that stay, and no other.

    Elsewhere the host would wait for the device to learn which stay. Samples are dropped as by
    mmcv's `DropPath` from the same seed. Where all are dropped, `branch` takes none, so that its
    parameters have gradients of zero, as without this.

    Args:
        x: `(B, ...)`.
        branch: To the same shape. It treats samples alone, and draws no random numbers.
        drop_path: Stochastic depth.

    Returns:
        `(B, ...)`.

    Source:
        Huang et al., Deep Networks with Stochastic Depth, 2016; mmcv 2.1.0, `drop_path`.
    """
    if is_idle(drop_path) and not is_seen(drop_path):
        return x + branch(x)
    if _refusal(x, drop_path) is not None:
        return x + drop_path(branch(x))
    keep_prob = 1 - drop_path.drop_prob
    noise = torch.rand(len(x), dtype=x.dtype)
    kept = (noise + keep_prob).floor().nonzero().flatten()
    if len(kept) == len(x):
        return torch.add(x, branch(x), alpha=1 / keep_prob)
    return x.index_add(0, kept, branch(x[kept]), alpha=1 / keep_prob)


def _refusal(x: Tensor, drop_path: nn.Module) -> str | None:
    """Why all samples take the branch."""
    if x.device.type != "cpu":
        return "it would wait for the device"
    if type(drop_path) is not DropPath or is_seen(drop_path):
        return f"{type(drop_path).__name__} is called"
    if torch.is_autocast_enabled("cpu"):
        return "random numbers have the branch's dtype, which autocast chooses"
    return opaque_refusal()
