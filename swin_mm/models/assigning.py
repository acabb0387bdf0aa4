"""Assignment with the settings of mmdet's assigners."""

from mmdet.models.task_modules import MaxIoUAssigner
from torch import Tensor

from swin_mm.ops.assign import assign_by_iou


def assign(
    assigner: MaxIoUAssigner, boxes: Tensor, gt_boxes: Tensor, present: Tensor, usable: Tensor
) -> Tensor:
    """Gives the boxes of all images the ground truths that an assigner would, image by image.

    Args:
        assigner: One that `refusals.refuse_sampling` does not refuse.
        boxes: `(B, N, 4)`, or `(1, N, 4)` for all images; x1, y1, x2, y2 in pixels.
        gt_boxes: `(B, G, 4)`.
        present: `(B, G)` bool, where there is a ground truth.
        usable: `(B, N)` bool, boxes that count.

    Returns:
        `(B, N)` int64, as of `assign_by_iou`.
    """
    assigned, _ = assign_by_iou(
        boxes,
        gt_boxes,
        present,
        pos_iou_thr=assigner.pos_iou_thr,
        neg_iou_thr=assigner.neg_iou_thr,
        min_pos_iou=assigner.min_pos_iou,
        match_low_quality=assigner.match_low_quality,
        gt_max_assign_all=assigner.gt_max_assign_all,
        usable=usable,
    )
    return assigned
