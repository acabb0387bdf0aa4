"""Whether layers are what they seem, so that they may be computed without being called."""

from torch import nn


def has_hooks(module: nn.Module) -> bool:
    """Whether a module must be called.

    A hook of its own or of all modules sees it, or the instance has its own `forward`, as
    offloading libraries set.
    """
    state = module.__dict__
    return bool(
        state["_forward_hooks"]
        or state["_forward_pre_hooks"]
        or state["_backward_hooks"]
        or state["_backward_pre_hooks"]
        or "forward" in state
        or nn.modules.module._has_any_global_hook()  # there is no public function
    )


def is_bare_linear(layer: nn.Module) -> bool:
    """Whether a layer is its weight and bias and nothing more.

    LoRA, quantisation, pruning and hooks have an effect only where the layer is called.
    """
    return type(layer) is nn.Linear and not has_hooks(layer)


def is_identity(drop: nn.Module) -> bool:
    """Whether a dropout or drop path leaves its input alone."""
    is_zero = isinstance(drop, nn.Dropout) and drop.p == 0
    return is_zero or isinstance(drop, nn.Identity) or not drop.training
