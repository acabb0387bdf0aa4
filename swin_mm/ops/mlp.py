"""The MLP of a block: two linear layers with a GELU between.

`swin_mm.ops.reference` has the definition. `backend="triton"` adds bias and GELU in one pass, keeps
the first layer's products alone for backward, and takes the bias's gradient along. `auto` is the
definition, as of the norms; see `swin_mm.ops.norm`.

On the CPU, `mlp_with_residual` is C++ where that can run: hidden channels stay in the cache.
"""

import logging
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from swin_mm.ops import reference
from swin_mm.ops.cpp import linear as cpp
from swin_mm.ops.cpp.speed import speed_refusal
from swin_mm.ops.linear import linear
from swin_mm.ops.norm import Backend, uses_triton
from swin_mm.ops.reference import Norm

logger = logging.getLogger("swin_mm")


def mlp(
    x: Tensor,
    fc1_weight: Tensor,
    fc1_bias: Tensor | None,
    fc2_weight: Tensor,
    dtype: torch.dtype,
    backend: Backend = "auto",
) -> Tensor:
    """`gelu(x fc1_weightᵀ + fc1_bias) fc2_weightᵀ`, with the exact GELU, of the error function.

    The second layer's bias is left to the sum that follows.

    Args:
        x: `(..., C)`.
        fc1_weight: `(hidden, C)`.
        fc1_bias: `(hidden,)`; `None` for none.
        fc2_weight: `(C_out, hidden)`.
        dtype: What matrices are multiplied in.
        backend: `triton` or the readable definition.

    Returns:
        `(..., C_out)` in `dtype`.

    Raises:
        ValueError: When the kernels are asked for by name and cannot run.
    """
    given = [t for t in (x, fc1_weight, fc1_bias, fc2_weight) if t is not None]
    if uses_triton(backend, 1, *given):  # no row is normalised: any width goes
        from swin_mm.ops.triton.mlp import mlp as run  # imports Triton

        return run(x, fc1_weight, fc1_bias, fc2_weight, dtype)
    return reference.mlp(x, fc1_weight, fc1_bias, fc2_weight, dtype)


def mlp_with_residual(
    x: Tensor,
    fc1_weight: Tensor,
    fc1_bias: Tensor | None,
    fc2_weight: Tensor,
    fc2_bias: Tensor | None,
    residual: Tensor | None = None,
    norm: Norm | None = None,
    backend: Literal["auto", "cpp"] = "auto",
) -> Tensor:
    """`gelu(norm(x) fc1_weightᵀ + fc1_bias) fc2_weightᵀ + fc2_bias + residual`; the exact GELU.

    Args:
        x: `(..., C)`.
        fc1_weight: `(hidden, C)`.
        fc1_bias: `(hidden,)`; `None` for none.
        fc2_weight: `(C_out, hidden)`.
        fc2_bias: `(C_out,)`; `None` for none.
        residual: `(..., C_out)`; `None` for none.
        norm: Of `C` channels; `None` for none.
        backend: `auto` is C++ where it can run and is faster, `cpp` where it can run.

    Returns:
        `(..., C_out)`.
    """
    parameters = fc1_weight, fc1_bias, fc2_weight, fc2_bias
    reason = cpp.mlp_refusal(x, *parameters, *(norm or ())[:2])
    if reason is None and backend == "auto":
        reason = speed_refusal("linear")
    if reason is None:
        return cpp.mlp(x, *parameters, residual, norm)
    if x.device.type == "cpu" and not torch.compiler.is_compiling():
        _log_refusal(reason)
    hidden = linear(x, fc1_weight, fc1_bias, norm=norm, activation="gelu")
    return linear(hidden, fc2_weight, fc2_bias, residual=residual)


@lru_cache
def _log_refusal(reason: str) -> None:
    logger.debug("mlp: PyTorch's operators instead of C++: %s", reason)
