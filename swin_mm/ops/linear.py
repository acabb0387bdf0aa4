"""Linear layers together with what is beside them, in one pass over memory: a norm before, an
activation or a sum after.

On the CPU, PyTorch's own linear layer first copies the bias to the output, and GELU and residual
are passes of their own. oneDNN's does it while the products are in the cache;
it has no gradient, so it serves inference. Everything else takes the readable formula.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from swin_mm.ops.reference import Norm
from swin_mm.ops.transforms import is_plain, opaque_refusal

Activation = Literal["none", "gelu"]


def refusal(*tensors: Tensor) -> str | None:
    """Tells why oneDNN's operator cannot serve these tensors; `None` means that it can.

    It is asked before every linear layer, so what refuses most layers, on GPUs and in training, is
    looked at first.
    """
    if any(t.device.type != "cpu" for t in tensors):
        return "it runs on the CPU"
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return "it has no gradient"
    if reason := opaque_refusal():
        return reason
    if not _has_onednn():
        return "this PyTorch has no fused linear operator, or oneDNN is switched off"
    if not is_plain(*tensors):
        return "a tensor is of a class of its own"
    if any(t.dtype != torch.float32 for t in tensors):
        return "it is for float32"
    if torch.is_autocast_enabled("cpu"):
        return "autocast chooses the dtype"
    return None


def _has_onednn() -> bool:
    return (
        torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    norm: Norm | None = None,
    activation: Activation = "none",
    residual: Tensor | None = None,
) -> Tensor:
    """`activation(norm(x) weightᵀ + bias) + residual`.

    Args:
        x: `(..., C_in)`.
        weight: `(C_out, C_in)`.
        bias: `(C_out,)`.
        norm: Of `C_in` channels; `None` for none.
        activation: `gelu` is the exact one, of the error function.
        residual: `(..., C_out)`, added last.

    Returns:
        `(..., C_out)`.

    Raises:
        ValueError: When the activation is unknown, or the residual has another shape than the
            output.
    """
    if activation not in ("none", "gelu"):
        raise ValueError(f"activation must be 'none' or 'gelu', got {activation!r}")
    shape = (*x.shape[:-1], weight.shape[0])
    if residual is not None and residual.shape != shape:
        raise ValueError(f"residual must be {tuple(shape)} as the output, got {residual.shape}")
    given = [t for t in (x, weight, bias, residual, *(norm or ())[:2]) if t is not None]
    if norm is not None:
        x = F.layer_norm(x, x.shape[-1:], *norm)
    # oneDNN's does one thing after the bias.
    if (residual is None or activation == "none") and refusal(*given) is None:
        if residual is None:
            return torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], "none")
        return torch.ops.mkldnn._linear_pointwise.binary(x, residual, weight, bias, "add")
    out = F.linear(x, weight, bias)
    if activation == "gelu":
        out = F.gelu(out)
    return out if residual is None else out + residual
