"""`carafe`: upsampling in which every output pixel has a kernel of its own."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from swin_mm.compat.mmcv_ext.precision import widen


def carafe_naive_forward(
    features: Tensor,
    masks: Tensor,
    output: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Weighs, for every output pixel, the input pixels around the one it comes from.

    Args:
        features: `(B, C, H, W)`.
        masks: `(B, group_size * kernel_size**2, H * scale_factor, W * scale_factor)`, the kernels.
        output: `(B, C, H * scale_factor, W * scale_factor)`, written.
        kernel_size: side of the kernels, odd.
        group_size: number of kernels per output pixel; each serves `C // group_size` channels.
        scale_factor: factor of the upsampling.
    """
    total = None
    # Tap by tap: unfolding the features would take kernel_size**2 times their memory.
    for pixels, weights, _ in _taps(features, masks, kernel_size, group_size, scale_factor):
        total = pixels * weights if total is None else total.addcmul_(pixels, weights)
    assert total is not None  # a kernel has a tap at least
    output.copy_(total.reshape(output.shape))


def carafe_naive_backward(
    top_grad: Tensor,
    features: Tensor,
    masks: Tensor,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Gradients of `carafe_naive_forward`, written into `bottom_grad` and `mask_grad`.

    Args:
        top_grad: as `output` of the forward operator.
        bottom_grad: as `features`.
        mask_grad: as `masks`.
        features and the rest: as in the forward operator.
    """
    height, width = features.shape[2:]
    reach = kernel_size // 2
    grad = _split(widen(top_grad), group_size, scale_factor)
    features_grad = F.pad(torch.zeros_like(widen(features)), (reach,) * 4)
    mask_rows = mask_grad.unflatten(1, (group_size, -1))  # (B, g, k*k, H*s, W*s), a view
    taps = _taps(features, masks, kernel_size, group_size, scale_factor)
    for tap, (pixels, weights, (row, column)) in enumerate(taps):
        mask_rows[:, :, tap] = (pixels * grad).sum(2).flatten(2, 3).flatten(3).to(mask_grad.dtype)
        part = (weights * grad).sum((4, 6)).flatten(1, 2)  # (B, C, H, W)
        features_grad[:, :, row : row + height, column : column + width] += part
    bottom_grad.copy_(features_grad[:, :, reach : reach + height, reach : reach + width])


def carafe_forward(
    features: Tensor,
    masks: Tensor,
    rfeatures: Tensor,
    routput: Tensor,
    rmasks: Tensor,
    output: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """As `carafe_naive_forward`.

    Args:
        rfeatures: as `features`, written: what `carafe_backward` gets back. The compiled operator
            keeps them here with the channels last.
        routput, rmasks: working memory of the compiled operator; unused.
    """
    rfeatures.copy_(features)
    carafe_naive_forward(features, masks, output, kernel_size, group_size, scale_factor)


def carafe_backward(
    top_grad: Tensor,
    rfeatures: Tensor,
    masks: Tensor,
    rtop_grad: Tensor,
    rbottom_grad_hs: Tensor,
    rbottom_grad: Tensor,
    rmask_grad: Tensor,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """As `carafe_naive_backward`.

    Args:
        rfeatures: the features, as `carafe_forward` left them.
        rtop_grad, rbottom_grad_hs, rbottom_grad, rmask_grad: working memory of the compiled
            operator; unused.
    """
    carafe_naive_backward(
        top_grad, rfeatures, masks, bottom_grad, mask_grad, kernel_size, group_size, scale_factor
    )


def _split(upsampled: Tensor, group_size: int, scale_factor: int) -> Tensor:
    """Parts channels into groups and pixels into blocks: `(B, g, C/g, H, s, W, s)`, a view."""
    return (
        upsampled.unflatten(3, (-1, scale_factor))
        .unflatten(2, (-1, scale_factor))
        .unflatten(1, (group_size, -1))
    )


def _taps(
    features: Tensor, masks: Tensor, kernel_size: int, group_size: int, scale_factor: int
) -> Iterator[tuple[Tensor, Tensor, tuple[int, int]]]:
    """Yields, for each place in the kernel, the pixels and the weights that meet there.

    Yields:
        Pixels `(B, g, C/g, H, 1, W, 1)`, weights `(B, g, 1, H, s, W, s)`, row and column of the
        place.
    """
    height, width = features.shape[2:]
    padded = F.pad(widen(features), (kernel_size // 2,) * 4).unflatten(1, (group_size, -1))
    kernels = _split(widen(masks), group_size, scale_factor)
    for tap in range(kernel_size**2):
        row, column = divmod(tap, kernel_size)
        pixels = padded[..., row : row + height, column : column + width]
        yield pixels[..., :, None, :, None], kernels[:, :, tap, None], (row, column)
