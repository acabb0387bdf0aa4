"""`masked_im2col` and `masked_col2im`: a convolution computed at chosen places only."""

import torch
from torch import Tensor
from torch.nn import functional as F


def masked_im2col_forward(
    im: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    col: Tensor,
    kernel_h: int,
    kernel_w: int,
    pad_h: int,
    pad_w: int,
) -> None:
    """Gathers the patches of `im`, `(1, C, H, W)`, under a kernel of stride 1 at chosen places.

    `mask_h_idx` and `mask_w_idx`, `(K,)` int64, are rows and columns of the output places; `pad_h`
    and `pad_w` rows and columns of zeros around `im`; `col`, `(C * kernel_h * kernel_w, K)`, is
    written.
    """
    padded = F.pad(im[0], (pad_w, pad_w, pad_h, pad_h))
    rows = mask_h_idx + torch.arange(kernel_h, device=im.device)[:, None]  # (kernel_h, K)
    columns = mask_w_idx + torch.arange(kernel_w, device=im.device)[:, None]
    patches = padded[:, rows[:, None], columns[None]]  # (C, kernel_h, kernel_w, K)
    col.copy_(patches.flatten(0, 2))


def masked_col2im_forward(
    col: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    im: Tensor,
    height: int,
    width: int,
    channels: int,
) -> None:
    """Writes columns `(channels, K)` to their places in `im` `(1, channels, height, width)`."""
    im[0, :, mask_h_idx, mask_w_idx] = col.to(im.dtype)
