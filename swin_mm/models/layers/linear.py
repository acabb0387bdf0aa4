"""Calls linear layers so that what is beside them can be done in the same pass over memory."""

from torch import Tensor, nn

from swin_mm.ops.linear import linear
from swin_mm.ops.reference import Norm

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def is_plain(layer: nn.Module) -> bool:
    """Whether a layer is its weight and bias and nothing more.

    What stands in a layer's place (LoRA, quantisation), what is hooked to it and a `forward` that
    was put on it have an effect only when the layer is called.
    """
    return type(layer) is nn.Linear and not is_seen(layer)


def is_seen(module: nn.Module) -> bool:
    """Whether a hook, its own or one of all modules, sees a module called."""
    return has_global_hook() or has_hooks(module)


def has_global_hook() -> bool:
    return nn.modules.module._has_any_global_hook()  # no public function tells this


def has_hooks(module: nn.Module) -> bool:
    """Whether a module has hooks, or an instance's own `forward`, as offloading libraries set."""
    return "forward" in vars(module) or any(getattr(module, kind) for kind in HOOKS)


def is_idle(drop: nn.Module) -> bool:
    """Whether a dropout or drop path leaves its input alone."""
    is_zero = isinstance(drop, nn.Dropout) and drop.p == 0
    return is_zero or isinstance(drop, nn.Identity) or not drop.training


def is_exact_gelu(act: nn.Module) -> bool:
    """Whether an activation is the GELU of the error function."""
    return type(act) is nn.GELU and act.approximate == "none"


def norm_refusal(norm: nn.Module) -> str | None:
    """Why no kernel computes a norm; `None` where one does."""
    if type(norm) is not nn.LayerNorm or norm.bias is None or len(norm.normalized_shape) != 1:
        return f"a norm is {norm}"
    return None


def parameters_of(norm: nn.LayerNorm) -> Norm:
    return Norm(norm.weight, norm.bias, norm.eps)


def split_norm(norm: nn.Module | None, x: Tensor) -> tuple[Tensor, Norm | None]:
    """Leaves a norm to the layer that follows, or applies it where somebody may see it called."""
    if norm is None:
        return x, None
    if norm_refusal(norm) or is_seen(norm):
        return norm(x), None
    return x, parameters_of(norm)


def apply_linear(
    layer: nn.Module,
    x: Tensor,
    *,
    norm: nn.Module | None = None,
    act: nn.Module | None = None,
    drop: nn.Module | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """`drop(act(layer(norm(x)))) + residual`; what is `None` is left out.

    Args:
        layer: From `(..., C_in)` to `(..., C_out)`.
        x: `(..., C_in)`.
        norm: Norm of `C_in` channels.
        act: Activation.
        drop: Dropout.
        residual: `(..., C_out)`.

    Returns:
        `(..., C_out)`.
    """
    activation = "none" if act is None else _name(act)
    is_dropped = drop is not None and (is_seen(drop) or not is_idle(drop))
    if is_plain(layer) and activation and not is_dropped:
        x, norm = split_norm(norm, x)
        parameters = x, layer.weight, layer.bias
        return linear(*parameters, norm=norm, activation=activation, residual=residual)
    out = layer(x if norm is None else norm(x))
    for follower in (act, drop):
        out = out if follower is None else follower(out)
    return out if residual is None else out + residual


def _name(act: nn.Module) -> str | None:
    """The name of an activation for `linear`; `None` where it has none."""
    return "gelu" if is_exact_gelu(act) and not is_seen(act) else None
