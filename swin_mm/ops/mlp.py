"""The MLP of a block: two linear layers with a GELU between.

`swin_mm.ops.reference` has the definition. `backend="triton"` adds bias and GELU in one pass, keeps
the first layer's products alone for backward, and takes the bias's gradient along. `auto` is the
definition, as of the norms; see `swin_mm.ops.norm`.
"""

import torch
from torch import Tensor

from swin_mm.ops import reference
from swin_mm.ops.norm import Backend, uses_triton


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
