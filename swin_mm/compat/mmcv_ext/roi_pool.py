"""`roi_pool`: the largest value in each cell of a grid laid over a region.

torchvision's `roi_pool` rounds regions to whole cells first; mmcv's does not, so it can't serve.
"""

import torch
from torch import Tensor

from swin_mm.compat.mmcv_ext.tensors import widen

# Values gathered at a time; bounds the memory at 64 MiB for float32.
GATHERED_VALUES = 1 << 24
# What mmcv writes as the place of the maximum of an empty cell.
NOWHERE = -1


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Pools regions of a feature map to one size by their maxima; 0 in empty cells.

    x2 and y2 of `rois` are inside. `argmax`, int32, as `output`, is written: index of the maximum
    in the flattened map, or -1. See `sampling` for the other arguments.
    """
    features = widen(input)
    rois = rois.to(features.dtype)
    argmax.fill_(NOWHERE)
    corners = torch.cat((rois[:, 1:3], rois[:, 3:] + 1), dim=1) * spatial_scale
    left, top, right, bottom = corners.unbind(dim=1)
    valid = ((right > left) & (bottom > top)).nonzero().squeeze(1)
    if not len(valid):
        return
    image = rois[valid, 0].long()
    rows = _cells(top[valid], bottom[valid], pooled_height, features.shape[2])
    columns = _cells(left[valid], right[valid], pooled_width, features.shape[3])
    per_roi = features.shape[1] * rows[0][0].numel() * columns[0][0].numel()
    number = max(1, GATHERED_VALUES // max(1, per_roi))
    for part in torch.arange(len(valid), device=rois.device).split(number):
        down, across = [r[part] for r in rows], [c[part] for c in columns]
        maximum, place = _largest(features, image[part], down, across)
        output[valid[part]] = maximum.to(output.dtype)
        argmax[valid[part]] = place.to(argmax.dtype)


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Adds the gradient of `roi_pool_forward` by `input` to `grad_input`."""
    grad = widen(grad_output) * (argmax != NOWHERE)
    channels = grad_input.shape[1]
    image = rois[:, 0].long()[:, None, None, None]
    channel = torch.arange(channels, device=grad.device)[:, None, None]
    plane_size = grad_input.shape[2] * grad_input.shape[3]
    place = (image * channels + channel) * plane_size + argmax.long().clamp(min=0)
    total = torch.zeros(grad_input.numel(), dtype=grad.dtype, device=grad.device)
    total.index_add_(0, place.flatten(), grad.flatten())
    grad_input += total.view(grad_input.shape).to(grad_input.dtype)


def _cells(start: Tensor, end: Tensor, pooled: int, length: int) -> tuple[Tensor, Tensor]:
    """Map rows (or columns), `length` in all, that each output row (or column) covers.

    Returns:
        `(R, pooled, K)` indices, K the most that any output row covers, and a mask of those valid.
    """
    size = ((end - start) / pooled)[:, None]
    cell = torch.arange(pooled, device=start.device, dtype=start.dtype)
    first = (cell * size + start[:, None]).floor().long().clamp(0, length)
    last = ((cell + 1) * size + start[:, None]).ceil().long().clamp(0, length)
    most = int((last - first).max().clamp(min=1))
    index = first[..., None] + torch.arange(most, device=start.device)
    return index.clamp(max=length - 1), index < last[..., None]


def _largest(
    features: Tensor, image: Tensor, down: list[Tensor], across: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """Largest value of each output cell and its place, each `(R, C, PH, PW)`.

    `down` and `across` are rows `(R, PH, KH)` and columns `(R, PW, KW)` of `_cells`.
    """
    rows, row_ok = (part[:, :, None, :, None] for part in down)
    columns, column_ok = (part[:, None, :, None, :] for part in across)
    ok = (row_ok & column_ok).flatten(-2)  # (R, PH, PW, KH*KW)
    place = (rows * features.shape[3] + columns).flatten(-2)
    maps = features.flatten(2).transpose(1, 2)  # (B, H*W, C)
    values = maps[image[:, None, None, None], place]  # (R, PH, PW, KH*KW, C)
    values = values.masked_fill(~ok.unsqueeze(-1), float("-inf"))
    maximum, winner = values.max(dim=-2)  # (R, PH, PW, C)
    place = place.gather(-1, winner)
    filled = ok.any(-1, keepdim=True)
    maximum = torch.where(filled, maximum, torch.zeros_like(maximum))
    place = torch.where(filled, place, torch.full_like(place, NOWHERE))
    return maximum.permute(0, 3, 1, 2), place.permute(0, 3, 1, 2)
