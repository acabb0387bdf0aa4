"""Layer norms together with what is beside them: a residual sum, or the joining of neighbours.

`swin_mm.ops.reference` has the readable definitions; `backend="triton"` takes one pass over memory.
`auto` is the definition: it is for blocks to ask for the kernels, where they have passed a trial,
see `swin_mm.models.layers.lean`.
"""

from typing import Literal

import torch
from torch import Tensor

from swin_mm.ops import reference
from swin_mm.ops.reference import Branch, Norm
from swin_mm.ops.triton.support import row_refusal

Backend = Literal["auto", "triton", "reference"]


def add_norm(
    x: Tensor | None,
    branch: Branch | None,
    norm: Norm | None,
    dtype: torch.dtype,
    backend: Backend = "auto",
) -> tuple[Tensor | None, Tensor | None]:
    """Adds a residual branch, and normalises the sum.

    Args:
        x: `(B, H, W, C)`; `None` for zeros.
        branch: What is added; `None` for nothing. Not both are `None`.
        norm: The norm; `None` for none, where there is something to add.
        dtype: Of the normalised map.
        backend: `triton` or the readable definition.

    Returns:
        The sum, `(B, H, W, C)` in the dtype that `x` and the branch share, `None` where there is no
        `x`; and the normalised map in `dtype`, `None` without a norm.

    Raises:
        ValueError: When there is nothing to do, samples are dropped that have no `x` to stay, or
            the kernels are asked for by name and cannot run.
    """
    if (x is None and branch is None) or (norm is None and (x is None or branch is None)):
        raise ValueError("add_norm needs a map and a branch to add, or a norm for one of them")
    if x is None and branch.noise is not None:
        raise ValueError("add_norm drops a branch only beside a map that stays: give x")
    given = [t for t in (x, *(branch or ())[:3], *(norm or ())[:2]) if t is not None]
    if uses_triton(backend, given[0].shape[-1], *given):
        from swin_mm.ops.triton.add_norm import add_norm as run  # imports Triton

        return run(x, branch, norm, dtype)
    return reference.add_norm(x, branch, norm, dtype)


def norm_add(
    x: Tensor, branch: Branch, norm: Norm, dtype: torch.dtype, backend: Backend = "auto"
) -> tuple[Tensor, Tensor]:
    """Normalises a residual branch, and adds it: `x + keep * norm(value + bias)`.

    Args:
        x: `(B, H, W, C)`.
        branch: What is normalised and added.
        norm: The norm.
        dtype: Of the copy of the sum that the next layer reads.
        backend: `triton` or the readable definition.

    Returns:
        The sum, `(B, H, W, C)` in the dtype of `x`, and the sum in `dtype`; both may be one tensor.

    Raises:
        ValueError: When the kernels are asked for by name and cannot run.
    """
    given = [t for t in (x, *branch[:3], *norm[:2]) if t is not None]
    if uses_triton(backend, x.shape[-1], *given):
        from swin_mm.ops.triton.norm_add import norm_add as run  # imports Triton

        return run(x, branch, norm, dtype)
    return reference.norm_add(x, branch, norm, dtype)


def merge_norm(x: Tensor, norm: Norm, dtype: torch.dtype, backend: Backend = "auto") -> Tensor:
    """Joins 2x2 neighbours into one token, and normalises its channels.

    Args:
        x: `(B, H, W, C)`; odd sides are padded with zeros.
        norm: The norm of `4*C` channels.
        dtype: Of the result.
        backend: `triton` or the readable definition.

    Returns:
        `(B, ceil(H/2), ceil(W/2), 4*C)`, neighbours in `MERGE_ORDER`.

    Raises:
        ValueError: When the kernels are asked for by name and cannot run.
    """
    if uses_triton(backend, 4 * x.shape[-1], x, *norm[:2]):
        from swin_mm.ops.triton.merge_norm import merge_norm as run  # imports Triton

        return run(x, norm, dtype)
    return reference.merge_norm(x, norm, dtype)


def uses_triton(backend: Backend, channels: int, *tensors: Tensor) -> bool:
    """Whether the kernels run.

    Raises:
        ValueError: When they are asked for by name and cannot, or the backend is unknown.
    """
    if backend not in ("auto", "triton", "reference"):
        raise ValueError(f"backend must be 'auto', 'triton' or 'reference', got {backend!r}")
    if backend != "triton":
        return False
    reason = row_refusal(channels, *tensors)
    if reason is not None:
        raise ValueError(f"backend='triton' cannot run: {reason}; 'auto' takes the definition")
    return True
