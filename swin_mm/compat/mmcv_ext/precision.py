"""Computing in a dtype that the kernels below know."""

import torch
from torch import Tensor


def widen(tensor: Tensor) -> Tensor:
    """Casts float16 and bfloat16 to float32, and leaves other dtypes alone.

    torchvision has no bfloat16 kernel for RoIAlign, nor a half one for NMS on the CPU, and sums
    over many terms lose digits in half precision. Operators widen what they read; writing into
    the caller's output with `copy_` narrows the result again.
    """
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
