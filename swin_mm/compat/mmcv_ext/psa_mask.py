"""`psamask`: turns per-pixel maps of relative positions into maps of absolute ones."""

import torch
from torch import Tensor

# mmcv's numbering of `psa_type`: a pixel's map says how it collects from the others, or how it
# distributes to them.
COLLECT, DISTRIBUTE = 0, 1


def psamask_forward(
    input: Tensor,
    output: Tensor,
    psa_type: int,
    num_: int,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> None:
    """Moves each pixel's map, which is centred on it, to the feature map's own coordinates.

    Args:
        input: `(B, h_mask * w_mask, H, W)`, for each pixel a map of its surroundings.
        output: `(B, H * W, H, W)`, written. `COLLECT`: the pixel is in the last two axes, the
            other pixel in axis 1; `DISTRIBUTE`: the reverse. 0 beyond the pixel's map.
        psa_type: `COLLECT` or `DISTRIBUTE`.
        num_: B.
        h_feature, w_feature: H and W.
        h_mask, w_mask: sides of the pixels' maps.
        half_h_mask, half_w_mask: row and column of the pixel itself in its map.
    """
    maps = input.unflatten(1, (h_mask, w_mask))  # (B, h_mask, w_mask, H, W)
    y, h = _axes(h_feature, h_feature, input.device)
    x, w = _axes(w_feature, w_feature, input.device)
    moved = _pick(maps, y - h + half_h_mask, x - w + half_w_mask)  # (B, y, x, h, w)
    if psa_type == DISTRIBUTE:
        moved = moved.permute(0, 3, 4, 1, 2)
    output.copy_(moved.flatten(1, 2))


def psamask_backward(
    grad_output: Tensor,
    grad_input: Tensor,
    psa_type: int,
    num_: int,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> None:
    """Gradient of `psamask_forward`.

    Args:
        grad_output: as `output` of the forward operator.
        grad_input: as `input`, written.
        psa_type and the rest: as in the forward operator.
    """
    maps = grad_output.unflatten(1, (h_feature, w_feature))
    if psa_type == DISTRIBUTE:
        maps = maps.permute(0, 3, 4, 1, 2)
    i, h = _axes(h_mask, h_feature, grad_output.device)
    j, w = _axes(w_mask, w_feature, grad_output.device)
    grads = _pick(maps, i + h - half_h_mask, j + w - half_w_mask)  # (B, i, j, h, w)
    grad_input.copy_(grads.flatten(1, 2))


def _axes(places: int, pixels: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Indices of places `(places, 1)` and of pixels `(pixels,)` along one axis."""
    return torch.arange(places, device=device)[:, None], torch.arange(pixels, device=device)


def _pick(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Reads each pixel's map at places of its own; 0 beyond the map.

    Args:
        maps: `(B, I, J, H, W)`, a map `(I, J)` for each pixel `(H, W)`.
        rows: `(Y, H)`, which row of the map to read.
        columns: `(X, W)`, which column.

    Returns:
        `(B, Y, X, H, W)`.
    """
    height, width = maps.shape[3:]
    row_ok = (rows >= 0) & (rows < maps.shape[1])
    column_ok = (columns >= 0) & (columns < maps.shape[2])
    picked = maps[
        :,
        rows.clamp(0, maps.shape[1] - 1)[:, None, :, None],
        columns.clamp(0, maps.shape[2] - 1)[None, :, None, :],
        torch.arange(height, device=maps.device)[:, None],
        torch.arange(width, device=maps.device),
    ]
    return picked * (row_ok[:, None, :, None] & column_ok[None, :, None, :])
