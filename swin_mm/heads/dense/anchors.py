"""Anchors of all levels in one tensor, made once for each size of feature maps."""

from typing import NamedTuple

import torch
from mmdet.models.task_modules import AnchorGenerator
from torch import Tensor

from swin_mm.heads.ops.transfer import to_device
from swin_mm.ops.cache import cached


class Anchors(NamedTuple):
    """Anchors by level, row, column and number at the cell."""

    boxes: Tensor  # (A, 4), x1, y1, x2, y2 in pixels
    cells: Tensor  # (A, 2), x and y of the top left corner of the anchor's cell, in pixels
    levels: Tensor  # (A,) int64
    spans: Tensor  # (L, 2) int64, where each level begins and how many anchors are in it
    sizes: list[int]  # how many there are in each level

    def find_usable(self, pad_shapes: Tensor, img_shapes: Tensor, border: float) -> Tensor:
        """Which anchors may learn in which image, `(B, A)` bool.

        Shapes are widths and heights of images, `(B, 2)`, with their own padding, but without that
        of the batch, and without any. `border` pixels of an anchor may be outside; if it is
        negative, any number.
        """
        usable = (self.cells < pad_shapes[:, None]).all(2)
        if border >= 0:
            usable &= (self.boxes[:, :2] >= -border).all(1)
            usable &= (self.boxes[:, 2:] < (img_shapes + border)[:, None]).all(2)
        return usable

    def locate(self, image: Tensor, index: Tensor, num_images: int) -> Tensor:
        """Places `(S,)` of anchors, by image and index, among those of all images.

        These are level by level, and in a level image by image.
        """
        first, size = self.spans[self.levels[index]].unbind(1)
        return index + first * (num_images - 1) + size * image


# Sizes of batches differ in multi-scale training. At 800 x 1344 one set takes 8.6 MB.
@cached(8)
def make_anchors(
    generator: AnchorGenerator,
    map_sizes: tuple[tuple[int, int], ...],
    dtype: torch.dtype,
    device: torch.device,
) -> Anchors:
    """The anchors of a generator for feature maps of some heights and widths."""
    if any(base.is_meta for base in generator.base_anchors):  # built without memory
        with torch.device("cpu"):
            generator.base_anchors = generator.gen_base_anchors()
    # The generator copies them to the device at every call, which waits for it.
    generator.base_anchors = [base.to(device) for base in generator.base_anchors]
    boxes = generator.grid_priors(map_sizes, dtype=dtype, device=device)
    cells, levels = [], []
    per_cell = generator.num_base_priors
    for level, (height, width) in enumerate(map_sizes):
        stride_x, stride_y = generator.strides[level]
        x = torch.arange(width, device=device) * stride_x
        y = torch.arange(height, device=device) * stride_y
        corners = torch.cartesian_prod(y, x).flip(1)  # (H*W, 2)
        cells.append(corners.repeat_interleave(per_cell[level], dim=0).to(dtype))
        levels.append(torch.full((len(boxes[level]),), level, device=device))
    sizes = [len(level) for level in boxes]
    spans = [(sum(sizes[:level]), size) for level, size in enumerate(sizes)]
    return Anchors(
        torch.cat(boxes),
        torch.cat(cells),
        torch.cat(levels),
        to_device(torch.tensor(spans), device),
        sizes,
    )
