"""Features of boxes by average pooling, RoIAlign, in a fraction of torchvision's time on a CPU.

Each cell of the output is a weighted sum of a few pixels of the map, and the weights are the same
in all channels. torchvision goes through the map channel by channel; with channels last, a pixel is
one piece of memory, and the sum is a bag of rows. The gradient is the same with the sparse matrix
of weights transposed.

Source: He et al., Mask R-CNN, 2017, section 3; sampling points as in torchvision's `roi_align`.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from scipy.sparse import csr_matrix
from torch import Tensor
from torch.autograd.function import once_differentiable


def roi_align(
    maps: Tensor,
    rois: Tensor,
    size: tuple[int, int],
    scale: float,
    sampling_ratio: int = 0,
    aligned: bool = True,
) -> Tensor:
    """Pools boxes of feature maps to one size.

    Args:
        maps: `(B, C, H, W)`; on a CPU fastest in channels-last memory. Of float16 and bfloat16,
            sums are in float32 there, in both directions.
        rois: `(R, 5)`, image index, then x1, y1, x2, y2 in pixels of the image; no gradient.
        size: Rows and columns of the output.
        scale: Pixels of the map for one of the image.
        sampling_ratio: Sampling points of an output cell along an axis; 0 for one for each pixel
            of the map.
        aligned: Whether the first pixel's centre is at 0.5 instead of 0.

    Returns:
        `(R, C, *size)`, on a CPU in channels-last memory.
    """
    if why_not_sparse(maps, rois) is None:
        return _BagsOfPixels.apply(maps, rois.detach(), size, scale, sampling_ratio, aligned)
    return torchvision.ops.roi_align(maps, rois, size, scale, sampling_ratio, aligned)


def why_not_sparse(maps: Tensor, rois: Tensor) -> str | None:
    """Why torchvision's operator is used, or `None` where the sparse product is."""
    if maps.device.type != "cpu":
        return "torchvision is fast on a GPU"
    if not len(rois) or not rois.isfinite().all():
        return "there are no boxes, or some are no numbers"
    if maps.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return "the sparse product is computed in float32"
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return "exported code has its own operator"
    return None


class _BagsOfPixels(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        maps: Tensor,
        rois: Tensor,
        size: tuple[int, int],
        scale: float,
        sampling_ratio: int,
        aligned: bool,
    ) -> Tensor:
        weights = _weigh(rois, maps.shape, size, scale, sampling_ratio, aligned)
        pixels = maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1]).float()  # (B*H*W, C)
        cells = _sum_bags(pixels, *weights).to(maps.dtype)  # (R*h*w, C)
        ctx.save_for_backward(*weights)
        ctx.shape = maps.shape
        return cells.unflatten(0, (len(rois), *size)).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        first, pixel, weight = ctx.saved_tensors
        batch, channels, height, width = ctx.shape
        dtype = grad.dtype
        grad = grad.permute(0, 2, 3, 1).reshape(-1, channels).float()  # (R*h*w, C)
        # By columns, which takes one pass; PyTorch would sort the entries.
        shape = (len(grad), batch * height * width)
        by_cell = csr_matrix((weight.numpy(), pixel.numpy(), first.numpy()), shape=shape)
        by_pixel = by_cell.tocsc()
        entries = (by_pixel.indptr, by_pixel.indices, by_pixel.data)
        first, cell, weight = (torch.from_numpy(part) for part in entries)
        pixels = _sum_bags(grad, first, cell.to(first.dtype), weight).to(dtype)
        return pixels.unflatten(0, (batch, height, width)).permute(0, 3, 1, 2), *[None] * 5


def _sum_bags(rows: Tensor, first: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """Weighted sums of rows `(N, C)`: `(M, C)`, for entries that begin at `first`, `(M + 1,)`."""
    return F.embedding_bag(
        index, rows, first, mode="sum", per_sample_weights=weight, include_last_offset=True
    )


def _weigh(
    rois: Tensor,
    shape: torch.Size,
    size: tuple[int, int],
    scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The sparse matrix from pixels of maps `(B, C, H, W)` to output cells, by rows.

    Returns:
        `(R*h*w + 1,)` int64, where each cell's entries begin; of each entry the pixel, counted
        through all images, int64; and its weight, float32.
    """
    height, width = shape[2:]
    corners = rois[:, 1:].float() * scale - (0.5 if aligned else 0.0)  # (R, 4)
    sides = corners[:, 2:] - corners[:, :2]
    if not aligned:
        sides = sides.clamp(min=1)
    column, of_column = _weigh_axis(corners[:, 0], sides[:, 0], size[1], width, sampling_ratio)
    row, of_row = _weigh_axis(corners[:, 1], sides[:, 1], size[0], height, sampling_ratio)
    weight = of_row[:, :, None, :, None] * of_column[:, None, :, None, :]
    row = row[:, :, None, :, None] + rois[:, 0].long()[:, None, None, None, None] * height
    pixel = row * width + column[:, None, :, None, :]  # (R, h, w, Kh, Kw)
    present = weight != 0
    counts = present.flatten(3).sum(3).flatten()
    first = F.pad(counts.cumsum(0), (1, 0))
    # NumPy finds them in a sixth of PyTorch's time.
    entry = torch.from_numpy(np.flatnonzero(present.numpy()))
    return first, pixel.flatten()[entry], weight.flatten()[entry]


def _weigh_axis(
    start: Tensor, length: Tensor, cells: int, pixels: int, sampling_ratio: int
) -> tuple[Tensor, Tensor]:
    """Averages linear interpolation at the sampling points of each cell along an axis.

    Boxes begin at `start` `(R,)` and have a `length` `(R,)`, both in pixels of the map.

    Returns:
        Pixels of each cell, int64, which may be beyond the map where the weight is 0, and their
        weights, float32; `(R, cells, K)` each.
    """
    side = length / cells  # (R,)
    counts = torch.full_like(side, sampling_ratio) if sampling_ratio > 0 else side.ceil()
    counts = counts.clamp(min=0)
    most = max(1, int(counts.max()))  # a box without area has no points, and is zeros
    point = torch.arange(most, device=start.device)  # (S,)
    cell = torch.arange(cells, device=start.device)[:, None]  # (cells, 1)
    start, side, counts = (t[:, None, None] for t in (start, side, counts))
    place = start + cell * side + (point + 0.5) * side / counts.clamp(min=1)  # (R, cells, S)
    counted = (point < counts) & (place >= -1) & (place <= pixels)
    place = place.clamp(min=0)
    low = place.long().clamp(max=pixels - 1)
    share = torch.where(low == pixels - 1, 0, place - low)  # of the next pixel
    nearest = torch.where(counted, low, pixels).amin(2, keepdim=True)
    offset = torch.where(counted, low - nearest, 0)
    per_cell = int(offset.max()) + 2
    weight = share.new_zeros(*place.shape[:2], per_cell)
    mean = counted / counts.clamp(min=1)
    weight.scatter_add_(2, offset, (1 - share) * mean).scatter_add_(2, offset + 1, share * mean)
    return nearest + torch.arange(per_cell, device=start.device), weight
