"""Fits position parameters to other windows and images, and patch embeddings to other patches."""

from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor

from swin_mm.checkpoint.errors import CheckpointError

# Channels of the images that published weights are for.
RGB = 3


def resize_bias_table(table: Tensor, window_size: tuple[int, int]) -> Tensor:
    """Interpolates a table of relative position biases to another window `(Wh, Ww)`, in tokens.

    The table is `((2*Wh-1) * (2*Ww-1), nH)`, a row for each offset between two tokens; of a square
    window, or of `window_size`.

    Raises:
        CheckpointError: When the rows of `table` do not determine its window.

    Source:
        `load_pretrained` in `utils.py` of https://github.com/microsoft/Swin-Transformer: each head
        is an image of offsets, resized bicubically. The wanted window may be rectangular here.
    """
    rows = table.shape[0]
    target = (2 * window_size[0] - 1, 2 * window_size[1] - 1)
    if rows == target[0] * target[1]:
        return table
    side = isqrt(rows)
    if side * side != rows or side % 2 == 0:
        raise CheckpointError(
            f"a bias table of {rows} rows does not determine its window (a square one of side W "
            f"has (2W-1)^2 rows); use the window the checkpoint was made with, not {window_size}"
        )
    return _resize_grid(table.unflatten(0, (side, side)), target).flatten(0, 1)


def resize_position_embedding(embedding: Tensor, size: tuple[int, int]) -> Tensor:
    """Interpolates an absolute position embedding to another number of patches, as Microsoft does.

    It is `(1, S*S, C)` of a square image, or of any image of `size`, the wanted `(Ph, Pw)`.

    Raises:
        CheckpointError: When `embedding` is not that of a square image.
    """
    tokens = embedding.shape[1]
    if tokens == size[0] * size[1]:
        return embedding
    side = isqrt(tokens)
    if side * side != tokens:
        raise CheckpointError(
            f"a position embedding of {tokens} patches does not determine its height and width; "
            f"use the pretrain_img_size the checkpoint was made with, not one of {size} patches"
        )
    return _resize_grid(embedding[0].unflatten(0, (side, side)), size).flatten(0, 1).unsqueeze(0)


def resize_patches(weight: Tensor, in_channels: int, patch_size: tuple[int, int]) -> Tensor:
    """Fits the projection of patches to images of other channels, and to patches of another size.

    Channels: for one, the weights of red, green and blue are summed, so that a grey image gives
    what it gave as three equal channels. For more, they are repeated (red, green, blue, red, ...)
    and scaled by `3 / in_channels`, so that tokens keep their magnitude.

    Patches: the new weights are those whose products with an enlarged or reduced patch come
    closest, by least squares, to the old products with the patch itself. Resizing of patches is
    bicubic, with antialiasing. Plain interpolation of weights would scale tokens by the area.

    Returns:
        `(C, in_channels, *patch_size)`; `weight` itself where it has these sizes.

    Raises:
        CheckpointError: When channels are to be changed and `weight` is not for three of them.

    Source:
        Beyer et al., FlexiViT, 2023, section 3.4, https://arxiv.org/abs/2212.08013; for channels,
        `adapt_input_conv` of timm.
    """
    found = weight.shape[1]
    precise = _at_least_single(weight)
    if found != in_channels:
        if found != RGB:
            raise CheckpointError(
                f"{found} input channels cannot be fitted to {in_channels}, only {RGB} can (red, "
                f"green, blue); use in_channels={found}"
            )
        if in_channels == 1:
            precise = precise.sum(dim=1, keepdim=True)
        else:
            precise = precise[:, [i % RGB for i in range(in_channels)]] * (RGB / in_channels)
    if tuple(weight.shape[2:]) != tuple(patch_size):
        precise = _resample_patches(precise, patch_size)
    same = precise.shape == weight.shape
    return weight if same else precise.to(weight.dtype)


def _resample_patches(weight: Tensor, patch_size: tuple[int, int]) -> Tensor:
    """Solves `resize(patch) . new == patch . old` for `new`, for all patches, by least squares."""
    height, width = weight.shape[2:]
    pixels = torch.eye(height * width, dtype=weight.dtype, device=weight.device)
    pixels = pixels.unflatten(0, (1, -1)).unflatten(2, (height, width))  # (1, h*w, h, w)
    resized = F.interpolate(
        pixels, patch_size, mode="bicubic", antialias=True, align_corners=False
    ).flatten(2)[0]  # (h*w, newh*neww)
    solved = weight.flatten(2) @ torch.linalg.pinv(resized).T  # (C, in, newh*neww)
    return solved.unflatten(2, patch_size)


def _resize_grid(grid: Tensor, size: tuple[int, int]) -> Tensor:
    """Resizes `(H, W, C)` to `(*size, C)` bicubically."""
    precise = _at_least_single(grid)
    image = precise.permute(2, 0, 1).unsqueeze(0)  # (1, C, H, W)
    resized = F.interpolate(image, size, mode="bicubic", align_corners=False)
    return resized.squeeze(0).permute(1, 2, 0).to(grid.dtype)


def _at_least_single(tensor: Tensor) -> Tensor:
    """In single precision or better: CPUs lack half precision here, and float8 all operators."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
