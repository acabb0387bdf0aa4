"""Computing in a dtype that the kernels below know, and gradients by autograd."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def widen(tensor: Tensor) -> Tensor:
    """Casts float16 and bfloat16 to float32, and leaves other dtypes alone.

    torchvision has no bfloat16 kernel for RoIAlign, nor a half one for NMS on the CPU, and sums
    over many terms lose digits in half precision. Operators widen what they read; writing into
    the caller's output with `copy_` narrows the result again.
    """
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def add_gradients(
    function: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    grad_output: Tensor,
    targets: Sequence[Tensor],
) -> None:
    """Adds the gradients of `function(*inputs)`, given that of its output, to `targets`.

    mmcv hands over targets of zeros. Inputs are widened.
    """
    leaves = [widen(tensor).detach().requires_grad_() for tensor in inputs]
    with torch.enable_grad():
        output = function(*leaves)
    if output.requires_grad:  # it depends on an input
        grads = torch.autograd.grad(output, leaves, widen(grad_output), allow_unused=True)
        for target, grad in zip(targets, grads, strict=True):
            if grad is not None:
                target += grad.to(target.dtype)
