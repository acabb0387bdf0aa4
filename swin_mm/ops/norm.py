"""Layer norms together with what is beside them: a residual sum, or the joining of neighbours.

Each function is the readable definition; `backend="triton"` computes it in one pass over memory.
`auto` is the definition: the kernels have been checked in Triton's interpreter alone, and no GPU
has shown yet that they pay.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from swin_mm.ops.triton.support import row_refusal

Backend = Literal["auto", "triton", "reference"]
# Microsoft's order of the 2x2 neighbours in the merged channels, as (row, column) offsets.
MERGE_ORDER = ((0, 0), (1, 0), (0, 1), (1, 1))


class Norm(NamedTuple):
    """A layer norm.

    Attributes:
        weight: `(C,)`.
        bias: `(C,)`.
        eps: Added to the variance.
    """

    weight: Tensor
    bias: Tensor
    eps: float


class Branch(NamedTuple):
    """What a residual block adds, `keep * (value + bias)`, as long as it is not added.

    Attributes:
        value: `(B, H, W, C)`.
        bias: `(C,)`, of the linear layer that gave the value; `None` for none.
        noise: `(B,)` float32, uniform in [0, 1), for stochastic depth; `None` keeps all samples.
        keep_prob: Probability that a sample keeps its branch.
    """

    value: Tensor
    bias: Tensor | None = None
    noise: Tensor | None = None
    keep_prob: float = 1.0

    def keep(self) -> Tensor:
        """The factor on each sample, `(B, 1, 1, 1)`: 0, or as much as keeps the mean."""
        return ((self.keep_prob + self.noise).floor() / self.keep_prob)[:, None, None, None]

    def biased(self) -> Tensor:
        """`value + bias`."""
        return self.value if self.bias is None else self.value + self.bias


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
    return add_norm_reference(x, branch, norm, dtype)


def add_norm_reference(
    x: Tensor | None, branch: Branch | None, norm: Norm | None, dtype: torch.dtype
) -> tuple[Tensor | None, Tensor | None]:
    """Same contract as `add_norm`."""
    total = x
    if branch is not None:
        added = branch.biased() if branch.noise is None else branch.biased() * branch.keep()
        total = added
        if x is not None:
            total = (x + added).to(torch.promote_types(x.dtype, branch.value.dtype))
    out = None if norm is None else _normalise(total, norm).to(dtype)
    return (None if x is None else total), out


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
    return norm_add_reference(x, branch, norm, dtype)


def norm_add_reference(
    x: Tensor, branch: Branch, norm: Norm, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Same contract as `norm_add`."""
    added = _normalise(branch.biased(), norm)
    if branch.noise is not None:
        added = added * branch.keep()
    total = (x + added).to(x.dtype)
    return total, total.to(dtype)


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
    return merge_norm_reference(x, norm, dtype)


def merge_norm_reference(x: Tensor, norm: Norm, dtype: torch.dtype) -> Tensor:
    """Same contract as `merge_norm`."""
    height, width = x.shape[1:3]
    x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
    neighbours = [x[:, row::2, column::2] for row, column in MERGE_ORDER]
    return _normalise(torch.cat(neighbours, dim=-1), norm).to(dtype)


def _normalise(x: Tensor, norm: Norm) -> Tensor:
    """In the dtype that `x` and the norm share, whatever autocast is about."""
    dtype = torch.promote_types(x.dtype, norm.weight.dtype)
    with torch.autocast(x.device.type, enabled=False):
        weight, bias = norm.weight.to(dtype), norm.bias.to(dtype)
        return F.layer_norm(x.to(dtype), weight.shape, weight, bias, norm.eps)


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
