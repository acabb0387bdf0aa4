"""oneDNN's fused linear layers, for inference in float32 on a CPU.

PyTorch's own linear layer first copies the bias to the output, and GELU and residual are passes of
their own. oneDNN's operator does them while the products are in the cache. It has no gradient.
"""

import torch
from torch import Tensor, nn

from swin_mm.ops.setting import Setting


def why_not_onednn(setting: Setting) -> str | None:
    """Why the operators below cannot run in a setting; `None` where they can."""
    if setting.device.type != "cpu":
        return "it runs on the CPU"
    if setting.needs_grad:
        return "it has no gradient"
    if setting.graph != "eager":
        return "compiled and exported code uses PyTorch's operators"
    if setting.under_dispatch_mode or setting.is_transformed:
        return "a dispatch mode or a function transform must see the operators"
    if not setting.has_onednn or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return "this PyTorch has no fused linear operator, or oneDNN is switched off"
    if not setting.is_exact_tensor:
        return "a tensor is of a subclass"
    if setting.dtype != torch.float32:
        return f"it is for float32, got {setting.dtype}"
    if setting.autocast_dtype is not None:
        return "autocast chooses the dtype"
    return None


def mlp_add(x: Tensor, fc1: nn.Linear, fc2: nn.Linear, residual: Tensor | None) -> Tensor:
    """`fc2(gelu(fc1(x))) + residual`, `(..., C)` to `(..., C_out)`, with the exact GELU."""
    run = torch.ops.mkldnn._linear_pointwise
    hidden = run(x, fc1.weight, fc1.bias, "gelu", [], "none")
    if residual is None:
        return run(hidden, fc2.weight, fc2.bias, "none", [], "none")
    return run.binary(hidden, residual, fc2.weight, fc2.bias, "add")


def linear_add(x: Tensor, layer: nn.Linear, residual: Tensor) -> Tensor:
    """`layer(x) + residual`, `(..., C_in)` to `(..., C_out)`, the shape of `residual`."""
    run = torch.ops.mkldnn._linear_pointwise.binary
    return run(x, residual, layer.weight, layer.bias, "add")
