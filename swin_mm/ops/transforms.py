"""Who looks into operators from outside: transforms, forward derivatives, modes and compilers."""

import torch
from torch import Tensor


def is_transformed() -> bool:
    """Whether `torch.func`, as by vmap, or forward derivatives are at work.

    `torch.autograd.Function` without rules for them raises under either. No public function tells.
    """
    return (
        torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0
    )


def is_plain(*tensors: Tensor | None) -> bool:
    """Whether tensors are of no class of their own, as quantised and distributed ones are."""
    return all(type(t) in (Tensor, torch.nn.Parameter, type(None)) for t in tensors)


def is_watched() -> bool:
    """Whether a dispatch mode, as of counters and fake tensors, is to see each operator.

    Compilers have modes of their own, which know the operators of kernels.
    """
    return not torch.compiler.is_compiling() and torch._C._len_torch_dispatch_stack() > 0


def has_fake_tensors() -> bool:
    """Whether new tensors are fake ones, of a shape without values. No public function tells."""
    return torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is not None


def opaque_refusal() -> str | None:
    """Why an operator cannot run that does its work unseen; `None` where nobody looks."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return "compiled and exported code has PyTorch's operators"
    if is_watched() or is_transformed():
        return "a mode or a function transform watches the operators"
    return None
