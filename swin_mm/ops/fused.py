"""Steps of a block that are worth one pass over memory: norms and MLP with what is beside them.

`swin_mm.ops.reference` defines them; `backend="triton"` runs one kernel for each. Blocks choose
between both for all of their steps at once, see `swin_mm.ops.dispatch`.
"""

from typing import Literal

import torch
from torch import Tensor

from swin_mm.ops import reference
from swin_mm.ops.reference import Branch, Norm
from swin_mm.ops.setting import is_exact_tensor, setting_of
from swin_mm.ops.triton.support import DTYPES, why_not_rows

Backend = Literal["triton", "reference"]


def add_norm(
    x: Tensor | None,
    branch: Branch | None,
    norm: Norm | None,
    dtype: torch.dtype,
    backend: Backend = "reference",
) -> tuple[Tensor | None, Tensor | None]:
    """Adds a residual branch, and normalises the sum.

    Args:
        x: `(B, H, W, C)`; `None` for zeros.
        branch: What is added; `None` for nothing. Not both are `None`.
        norm: The norm; `None` for none, where there is something to add.
        dtype: Of the normalised map.
        backend: See above.

    Returns:
        The sum, `(B, H, W, C)` in the dtype that `x` and the branch share, `None` where there is no
        `x`; and the normalised map in `dtype`, `None` without a norm.

    Raises:
        ValueError: There is nothing to do, samples are dropped that have no `x` to stay, or the
            kernels are asked for and cannot run.
    """
    if (x is None and branch is None) or (norm is None and (x is None or branch is None)):
        raise ValueError("add_norm needs a map and a branch to add, or a norm for one of them")
    if x is None and branch is not None and branch.noise is not None:
        raise ValueError("add_norm drops a branch only beside a map that stays: give x")
    run = reference.add_norm
    if _uses_triton(backend, x, *(branch or ())[:3], *(norm or ())[:2]):
        from swin_mm.ops.triton.add_norm import add_norm as run  # imports Triton
    return run(x, branch, norm, dtype)


def norm_add(
    x: Tensor, branch: Branch, norm: Norm, dtype: torch.dtype, backend: Backend = "reference"
) -> tuple[Tensor, Tensor]:
    """Normalises a residual branch, and adds it: `x + drop_path_scale * norm(value + bias)`.

    Args:
        x: `(B, H, W, C)`.
        branch: What is normalised and added.
        norm: The norm.
        dtype: Of the copy of the sum that the next layer reads.
        backend: See above.

    Returns:
        The sum, `(B, H, W, C)` in the dtype of `x`, and the sum in `dtype`; both may be one tensor.

    Raises:
        ValueError: The kernels are asked for and cannot run.
    """
    run = reference.norm_add
    if _uses_triton(backend, x, *branch[:3], *norm[:2]):
        from swin_mm.ops.triton.norm_add import norm_add as run  # imports Triton
    return run(x, branch, norm, dtype)


def merge_norm(x: Tensor, norm: Norm, dtype: torch.dtype, backend: Backend = "reference") -> Tensor:
    """Joins 2x2 neighbours into one token, and normalises its channels.

    Args:
        x: `(B, H, W, C)`; odd sides are padded with zeros.
        norm: The norm of `4*C` channels.
        dtype: Of the result.
        backend: See above.

    Returns:
        `(B, ceil(H/2), ceil(W/2), 4*C)`, neighbours in `MERGE_ORDER`.

    Raises:
        ValueError: The kernels are asked for and cannot run.
    """
    run = reference.merge_norm
    if _uses_triton(backend, *norm[:2], x):
        from swin_mm.ops.triton.merge_norm import merge_norm as run  # imports Triton
    return run(x, norm, dtype)


def mlp(
    x: Tensor,
    fc1_weight: Tensor,
    fc1_bias: Tensor | None,
    fc2_weight: Tensor,
    dtype: torch.dtype,
    backend: Backend = "reference",
) -> Tensor:
    """`gelu(x fc1_weightᵀ + fc1_bias) fc2_weightᵀ`, with the exact GELU, of the error function.

    The second layer's bias is left to the sum that follows.

    Args:
        x: `(..., C)`.
        fc1_weight: `(hidden, C)`.
        fc1_bias: `(hidden,)`; `None` for none.
        fc2_weight: `(C_out, hidden)`.
        dtype: What matrices are multiplied in.
        backend: See above.

    Returns:
        `(..., C_out)` in `dtype`.

    Raises:
        ValueError: The kernels are asked for and cannot run.
    """
    run = reference.mlp
    # No row is normalised, so any width will do.
    if _uses_triton(backend, x, fc1_weight, fc1_bias, fc2_weight, any_width=True):
        from swin_mm.ops.triton.mlp import mlp as run  # imports Triton
    return run(x, fc1_weight, fc1_bias, fc2_weight, dtype)


def _uses_triton(backend: Backend, *tensors: Tensor | None, any_width: bool = False) -> bool:
    if backend not in ("triton", "reference"):
        raise ValueError(f"backend must be 'triton' or 'reference', got {backend!r}")
    if backend == "reference":
        return False
    given = [tensor for tensor in tensors if tensor is not None]
    first = given[0]
    reason = why_not_rows(setting_of(first, needs_grad=False), 1 if any_width else first.shape[-1])
    if reason is None and not is_exact_tensor(*given):
        reason = "a tensor is of a subclass"
    for tensor in given:
        if reason is None and tensor.dtype not in DTYPES:
            reason = f"they take {', '.join(str(known) for known in DTYPES)}, got {tensor.dtype}"
        if reason is None and tensor.device != first.device:
            reason = f"tensors are on {first.device} and {tensor.device}"
    if reason is not None:
        raise ValueError(f"backend='triton' cannot run: {reason}")
    return True
