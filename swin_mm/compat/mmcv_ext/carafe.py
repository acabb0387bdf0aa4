"""`carafe`: upsampling in which every output pixel has a kernel of its own."""

from functools import partial
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from swin_mm.compat.mmcv_ext.tensors import add_gradients, widen


def carafe_naive_forward(features: Tensor, masks: Tensor, output: Tensor, **sizes: Any) -> None:
    """Writes what `_reassemble` gives."""
    output.copy_(_reassemble(widen(features), widen(masks), **sizes))


def carafe_naive_backward(
    top_grad: Tensor,
    features: Tensor,
    masks: Tensor,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    **sizes: Any,
) -> None:
    """Gradients by features and masks."""
    function = partial(_reassemble, **sizes)
    add_gradients(function, (features, masks), top_grad, (bottom_grad, mask_grad))


def carafe_forward(
    features: Tensor,
    masks: Tensor,
    rfeatures: Tensor,
    routput: Any,
    rmasks: Any,
    output: Tensor,
    **sizes: Any,
) -> None:
    """As `carafe_naive_forward`; `rfeatures` are kept for `carafe_backward`."""
    rfeatures.copy_(features)
    carafe_naive_forward(features, masks, output, **sizes)


def carafe_backward(
    top_grad: Tensor,
    rfeatures: Tensor,
    masks: Tensor,
    rtop_grad: Any,
    rbottom_grad_hs: Any,
    rbottom_grad: Any,
    rmask_grad: Any,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    **sizes: Any,
) -> None:
    """As `carafe_naive_backward`."""
    carafe_naive_backward(top_grad, rfeatures, masks, bottom_grad, mask_grad, **sizes)


def _reassemble(
    features: Tensor, masks: Tensor, kernel_size: int, group_size: int, scale_factor: int
) -> Tensor:
    """Weighs, for every output pixel, the input pixels around the one it comes from.

    `features` are `(B, C, H, W)`, and `masks` the kernels of odd sides,
    `(B, group_size * kernel_size**2, H * scale_factor, W * scale_factor)`. Each of the `group_size`
    kernels of an output pixel serves `C // group_size` channels.
    """
    height, width = features.shape[2:]
    padded = F.pad(features, (kernel_size // 2,) * 4).unflatten(1, (group_size, -1))
    kernels = masks.unflatten(3, (-1, scale_factor)).unflatten(2, (-1, scale_factor))
    kernels = kernels.unflatten(1, (group_size, -1))  # (B, g, k*k, H, s, W, s)
    total = features.new_zeros(())
    # Tap by tap: unfolding the features would take kernel_size**2 times their memory.
    for tap, weights in enumerate(kernels.unbind(2)):
        row, column = divmod(tap, kernel_size)
        pixels = padded[..., row : row + height, column : column + width]  # (B, g, C/g, H, W)
        total = total + pixels[..., :, None, :, None] * weights[:, :, None]
    return total.flatten(5, 6).flatten(3, 4).flatten(1, 2)
