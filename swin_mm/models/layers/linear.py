"""Calls linear layers so that what follows them can be done in the same pass over memory."""

from torch import Tensor, nn

from swin_mm.ops.linear import linear


def is_plain(layer: nn.Module) -> bool:
    """Whether a layer is its weight and bias and nothing more.

    What stands in a layer's place (LoRA, quantisation) and what is hooked to it has an effect only
    when the layer is called.
    """
    return type(layer) is nn.Linear and not layer._forward_hooks and not layer._forward_pre_hooks


def is_idle(drop: nn.Module) -> bool:
    """Whether a dropout or drop path leaves its input alone."""
    is_zero = isinstance(drop, nn.Dropout) and drop.p == 0
    return is_zero or isinstance(drop, nn.Identity) or not drop.training


def is_exact_gelu(act: nn.Module) -> bool:
    """Whether an activation is the GELU of the error function, and nobody sees it called."""
    return type(act) is nn.GELU and act.approximate == "none" and not act._forward_hooks


def apply_linear(
    layer: nn.Module,
    x: Tensor,
    *,
    act: nn.Module | None = None,
    drop: nn.Module | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """`drop(act(layer(x))) + residual`; what is `None` is left out.

    Args:
        layer: From `(..., C_in)` to `(..., C_out)`.
        x: `(..., C_in)`.
        act: Activation.
        drop: Dropout.
        residual: `(..., C_out)`.

    Returns:
        `(..., C_out)`.
    """
    activation = "none" if act is None else _name(act)
    if is_plain(layer) and activation and (drop is None or is_idle(drop)):
        return linear(x, layer.weight, layer.bias, activation=activation, residual=residual)
    out = layer(x)
    for follower in (act, drop):
        out = out if follower is None else follower(out)
    return out if residual is None else out + residual


def _name(act: nn.Module) -> str | None:
    """The name of an activation for `linear`; `None` where it has none."""
    return "gelu" if is_exact_gelu(act) else None
