"""Greedy non-maximum suppression, one group of boxes in each program.

    keep_j = valid_j and no i < j with keep_i and IoU(i, j) > threshold

A program holds its boxes in registers and goes through them from the best: the box in turn, if it
has been kept, strikes out those after it that overlap it. There is no matrix of overlaps, and the
host need not know how many are kept. torchvision's kernel takes all boxes of a call one after
another in one program, on a GPU with room for hundreds.

Boxes and overlaps are float32. Nothing is fused or approximated, and the order of operations is
torchvision's, so that the decisions are those on a CPU.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

BOXES_PER_WARP = 256  # 8 for each thread, held in registers; no timing stands behind it


@triton.jit(do_not_specialize=["num_boxes"])
def nms_kernel(
    boxes_ptr,  # (G, N, 4) float32
    valid_ptr,  # (G, N) uint8
    keep_ptr,  # (G, N) uint8, written
    num_boxes,  # N
    threshold,
    BLOCK: tl.constexpr,  # a power of 2, at least N
):
    group = tl.program_id(0).to(tl.int64)
    boxes_ptr += group * num_boxes * 4
    number = tl.arange(0, BLOCK)
    inside = number < num_boxes
    x1 = tl.load(boxes_ptr + number * 4, mask=inside, other=0.0)
    y1 = tl.load(boxes_ptr + number * 4 + 1, mask=inside, other=0.0)
    x2 = tl.load(boxes_ptr + number * 4 + 2, mask=inside, other=0.0)
    y2 = tl.load(boxes_ptr + number * 4 + 3, mask=inside, other=0.0)
    area = (x2 - x1) * (y2 - y1)
    keep = tl.load(valid_ptr + group * num_boxes + number, mask=inside, other=0).to(tl.int32)
    for best in range(num_boxes):
        if tl.sum(tl.where(number == best, keep, 0), axis=0) > 0:
            left = tl.load(boxes_ptr + best * 4)
            top = tl.load(boxes_ptr + best * 4 + 1)
            right = tl.load(boxes_ptr + best * 4 + 2)
            bottom = tl.load(boxes_ptr + best * 4 + 3)
            width = tl.maximum(tl.minimum(x2, right) - tl.maximum(x1, left), 0.0)
            height = tl.maximum(tl.minimum(y2, bottom) - tl.maximum(y1, top), 0.0)
            overlap = width * height
            union = (right - left) * (bottom - top) + area - overlap
            struck = (number > best) & (tl.div_rn(overlap, union) > threshold)
            keep = tl.where(struck, 0, keep)
    tl.store(keep_ptr + group * num_boxes + number, keep.to(tl.uint8), mask=inside)


def nms(boxes: Tensor, valid: Tensor, iou_threshold: float) -> Tensor:
    """`swin_mm.heads.ops.nms.nms_sorted` by this kernel; boxes are float32."""
    groups, num_boxes = valid.shape
    keep = torch.empty(groups, num_boxes, dtype=torch.uint8, device=boxes.device)
    if keep.numel():
        block = triton.next_power_of_2(num_boxes)
        with torch.cuda.device_of(boxes):
            nms_kernel[(groups,)](
                boxes.contiguous(),
                valid.contiguous().view(torch.uint8),
                keep,
                num_boxes,
                iou_threshold,
                BLOCK=block,
                num_warps=max(1, block // BOXES_PER_WARP),
                enable_fp_fusion=False,
            )
    return keep.bool()
