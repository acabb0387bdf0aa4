"""What a mask head should say inside a box, from bitmaps of whole objects."""

import torch
from torch import Tensor
from torchvision.ops import roi_align

THRESHOLD = 0.5  # a cell belongs to the object if half of it is covered


def crop_bitmaps(
    bitmaps: Tensor, objects: Tensor, boxes: Tensor, size: tuple[int, int], binarize: bool = True
) -> Tensor:
    """Cuts boxes out of the bitmaps of objects and stretches them to one size.

    Args:
        bitmaps: `(G, H, W)`, of any dtype, ones inside the object.
        objects: `(N,)` int64, which object a box is to show.
        boxes: `(N, 4)`, x1, y1, x2, y2 in pixels, inside the image.
        size: Height and width of the cut-outs.
        binarize: Whether to give 0 or 1 in place of the share of a cell that is covered.

    Returns:
        `(N, height, width)` float32.

    Source: `BitmapMasks.crop_and_resize` of mmdet 3.3.0, which copies the whole bitmap once for
    every box.
    """
    rois = torch.cat((objects.to(boxes.dtype)[:, None], boxes), dim=1)
    shares = roi_align(bitmaps[:, None].to(boxes.dtype), rois, size, aligned=True)[:, 0]
    return (shares >= THRESHOLD).float() if binarize else shares.float()
