"""Masks of boxes, put into whole images."""

import numpy as np
import torch
from torch import Tensor

CHUNK_PIXELS = 2**28  # that a GPU computes at a time, in float32


def paste_masks(masks: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float) -> Tensor:
    """Stretches each mask, `(N, h, w)` from 0 to 1, over its box, `(N, 4)` in pixels.

    Masks are interpolated along one axis after the other, by two small products of matrices; values
    fall to zero beyond the outermost cells. On a CPU this is done where the boxes are, on a GPU for
    whole images at once.

    Returns:
        `(N, *size)` bool, where the interpolated value is at least `threshold`; if that is
        negative, the values, uint8 from 0 to 255.

    Source: `_do_paste_mask` of mmdet 3.3.0, which samples at a grid of points.
    """
    masks, boxes = masks.detach().float(), boxes.detach().float()
    paste = _paste_in_boxes if masks.device.type == "cpu" else _paste_in_images
    with torch.autocast(masks.device.type, enabled=False):
        return paste(masks, boxes, size, threshold)


def _paste_in_boxes(
    masks: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float
) -> Tensor:
    height, width = size
    # The system hands out NumPy's zeros where they are touched, and most pixels have no object.
    dtype = bool if threshold >= 0 else np.uint8
    pasted = torch.from_numpy(np.zeros((len(masks), height, width), dtype))
    first = (boxes[:, :2].floor() - 1).clamp(min=0)
    end = torch.minimum(boxes[:, 2:].ceil() + 1, boxes.new_tensor((width, height)))
    regions = torch.cat((first, end), dim=1).int().tolist()
    for image, mask, box, (left, top, right, bottom) in zip(
        pasted, masks, boxes, regions, strict=True
    ):
        if left < right and top < bottom:
            rows = _interpolation(top, bottom, box[1::2], mask.shape[0])
            columns = _interpolation(left, right, box[::2], mask.shape[1])
            values = rows @ mask @ columns.T
            image[top:bottom, left:right] = _binarize(values, threshold)
    return pasted


def _paste_in_images(
    masks: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float
) -> Tensor:
    height, width = size
    rows = _interpolation(0, height, boxes[:, 1::2], masks.shape[1])  # (N, H, h)
    columns = _interpolation(0, width, boxes[:, ::2], masks.shape[2])  # (N, W, w)
    chunk = max(1, CHUNK_PIXELS // (height * width))
    parts = zip(rows.split(chunk), masks.split(chunk), columns.split(chunk), strict=True)
    return torch.cat([_binarize(r @ m @ c.mT, threshold) for r, m, c in parts])


def _binarize(values: Tensor, threshold: float) -> Tensor:
    return values >= threshold if threshold >= 0 else (values * 255).to(torch.uint8)


def _interpolation(first: int, end: int, bounds: Tensor, cells: int) -> Tensor:
    """Linear interpolation of cells at the centres of pixels.

    `bounds`, `(..., 2)`, are where the cells begin and end. A side without length has no weight;
    mmdet shows the middle there.

    Returns:
        Weights, `(..., end - first, cells)`.
    """
    start, stop = bounds[..., None].unbind(-2)  # (..., 1) each
    centre = torch.arange(first, end, dtype=bounds.dtype, device=bounds.device) + 0.5
    place = (centre - start) / (stop - start) * cells - 0.5
    place = torch.where(stop > start, place, -2.0)
    distance = (place[..., None] - torch.arange(cells, device=place.device)).abs_()
    return distance.neg_().add_(1).clamp_(min=0)
