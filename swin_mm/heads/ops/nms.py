"""Non-maximum suppression of many groups of boxes: of images times levels, or times classes."""

from collections.abc import Sequence
from ctypes import c_float
from functools import partial

import torch
import torchvision
from torch import Tensor

from swin_mm.ops import self_test
from swin_mm.ops.self_test import KernelKey
from swin_mm.ops.setting import setting_of
from swin_mm.ops.triton import support

SELF_TEST_BOXES = 1000


def nms_sorted(boxes: Tensor, valid: Tensor, iou_threshold: float) -> Tensor:
    """Keeps the boxes of each group that overlap no better one by more than a threshold.

    On a GPU a Triton kernel takes groups of up to a few thousand boxes without waiting, once its
    self-test there has kept what torchvision keeps. Elsewhere torchvision takes group after group.

    Args:
        boxes: `(G, N, 4)`, x1, y1, x2, y2 in pixels; in each group by falling score.
        valid: `(G, N)` bool; others are not kept and suppress nothing.
        iou_threshold: A box goes when its IoU with a kept one is greater than this.

    Returns:
        `(G, N)` bool.
    """
    # mmcv compares in float32, torchvision in float64, where an IoU of float32(0.3) exceeds 0.3.
    threshold = c_float(iou_threshold).value
    if why_not_kernel(boxes) is None:
        from swin_mm.heads.ops.triton_nms import nms  # imports Triton

        return nms(boxes, valid, threshold)
    return _by_torchvision(boxes, valid, threshold)


def _by_torchvision(boxes: Tensor, valid: Tensor, threshold: float) -> Tensor:
    keep = torch.zeros_like(valid)
    for group, candidates in enumerate(valid):
        index = candidates.nonzero().squeeze(1)
        order = torch.arange(len(index), 0, -1, dtype=boxes.dtype, device=boxes.device)
        kept = torchvision.ops.nms(boxes[group, index], order, threshold)
        keep[group, index[kept]] = True
    return keep


def why_not_kernel(boxes: Tensor) -> str | None:
    """Why the Triton kernel is not used for groups `(G, N, 4)`; `None` where it is."""
    if not self_test.is_gpu(boxes.device):
        return "torchvision is fast on a CPU"
    if boxes.dtype != torch.float32:
        return f"it computes in float32, not {boxes.dtype}"
    reason = support.why_not_rows(setting_of(boxes, needs_grad=False), boxes.shape[1])
    return reason or why_not_self_tested(boxes.device)


def why_not_self_tested(device: torch.device) -> str | None:
    """Why the kernel is not used on a device, by a self-test at the first call, or `None`."""
    return self_test.why_not(KernelKey("NMS", "torchvision", device), partial(_test, device))


def _test(device: torch.device) -> str | None:
    """What is wrong with the kernel: what it keeps cannot be seen in a loss."""
    from swin_mm.heads.ops.triton_nms import nms  # imports Triton

    random = torch.Generator().manual_seed(0)
    shape = (2, 4, SELF_TEST_BOXES, 2)
    corner, sides = torch.rand(shape, generator=random, dtype=torch.float32).mul_(200).unbind()
    boxes = torch.cat((corner, corner + sides / 4 + 1), dim=2).to(device)
    valid = (torch.rand(4, SELF_TEST_BOXES, generator=random) > 0.1).to(device)
    agrees = torch.equal(nms(boxes, valid, 0.5), _by_torchvision(boxes, valid, 0.5))
    return None if agrees else "it keeps other boxes than torchvision"


def suppress_by_level(
    boxes: Tensor, valid: Tensor, sizes: Sequence[int], iou_threshold: float
) -> Tensor:
    """Keeps the boxes that overlap no better one of their image and level, as mmcv's `batched_nms`.

    As `nms_sorted` with images for groups, whose boxes are level by level, of the given sizes, and
    there by falling score.
    """
    levels = [boxes.new_full((size,), level) for level, size in enumerate(sizes)]
    apart = move_groups_apart(boxes, torch.cat(levels), valid)
    apart, padded_valid = _stack_levels(apart, sizes), _stack_levels(valid, sizes)
    keep = nms_sorted(apart, padded_valid, iou_threshold).unflatten(0, (len(boxes), len(sizes)))
    return torch.cat([keep[:, level, :size] for level, size in enumerate(sizes)], dim=1)


def _stack_levels(x: Tensor, sizes: Sequence[int]) -> Tensor:
    """Levels `(B, N, ...)` as groups of equal length `(B*L, n, ...)`, with zeros at their ends."""
    groups = x.new_zeros(len(x), len(sizes), max(sizes), *x.shape[2:])
    for level, part in enumerate(x.split(list(sizes), dim=1)):
        groups[:, level, : part.shape[1]] = part
    return groups.flatten(0, 1)


def move_groups_apart(boxes: Tensor, groups: Tensor, valid: Tensor) -> Tensor:
    """Moves the boxes of each group of an image by a multiple of more than its largest coordinate.

    `nms_sorted` needs no such distance. It rounds coordinates in float32, and mmcv's `batched_nms`
    decides by what is left, so that a box on the edge of the threshold is kept or not as there.
    `groups`, `(B, N)` or `(N,)`, are numbers such as level or class; boxes that are not `valid`,
    `(B, N)`, do not count for the largest coordinate.
    """
    coordinates = boxes.masked_fill(~valid[..., None], -torch.inf).flatten(1)
    largest = coordinates.amax(1, keepdim=True)  # (B, 1)
    return boxes + (groups.to(boxes) * (largest + 1))[..., None]


def explain(device: torch.device) -> tuple[str, str, str]:
    """What `nms_sorted` uses on a device: `(operator, implementation, reason)`."""
    reason = why_not_kernel(torch.zeros(1, 1, 4, device=device))
    chosen = ("torchvision", reason) if reason else ("triton", "self-test passed")
    return f"nms, {device}", *chosen
