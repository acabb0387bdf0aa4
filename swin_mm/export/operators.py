"""Operators that a graph records as one node each, and `onnx_operators` translates.

Their outputs have sizes that follow from those of their inputs, but for `resize_to`, so that no
other size in the graph depends on values. Nodes are few, and symbolic sizes stay simple: an
exporter that looks into window attention needs minutes for it.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from swin_mm.ops import reference
from swin_mm.ops.context import compute_context

# Scales of `swin_mm.ops.context` as numbers; others stand for themselves.
CONTEXT_SCALES = {"global": 0, "window": 1}


def _pair(values: Sequence[int]) -> tuple[int, int]:
    return values[0], values[1]


@torch.library.custom_op("swin_mm::window_attention", mutates_args=())
def window_attention(
    qkv: Tensor,
    bias: Tensor,
    pad_token: Tensor | None,
    num_heads: int,
    window_size: Sequence[int],
    shift_size: Sequence[int],
    scale: float,
) -> Tensor:
    """`swin_mm.ops.reference.window_attention`: `(B, H, W, 3*C)` to `(B, H, W, C)`."""
    return reference.window_attention(
        qkv,
        bias,
        pad_token,
        num_heads=num_heads,
        window_size=_pair(window_size),
        shift_size=_pair(shift_size),
        scale=scale,
    )


@window_attention.register_fake
def _(qkv: Tensor, *others: Any) -> Tensor:
    return qkv.new_empty(*qkv.shape[:3], qkv.shape[3] // 3)


@torch.library.custom_op("swin_mm::window_context", mutates_args=())
def window_context(
    qkv: Tensor,
    context_mix: Tensor,
    pad_token: Tensor | None,
    num_heads: int,
    window_size: Sequence[int],
    shift_size: Sequence[int],
    scales: Sequence[int],
) -> Tensor:
    """`swin_mm.ops.context.compute_context`, with scales as in `CONTEXT_SCALES`."""
    names: dict[int, Any] = {number: name for name, number in CONTEXT_SCALES.items()}
    return compute_context(
        qkv,
        pad_token,
        num_heads,
        _pair(window_size),
        _pair(shift_size),
        context_mix,
        tuple(names.get(scale, scale) for scale in scales),
    ).contiguous()


@window_context.register_fake
def _(qkv: Tensor, *others: Any) -> Tensor:
    return qkv.new_empty(*qkv.shape[:3], qkv.shape[3] // 3)


@torch.library.custom_op("swin_mm::suppress", mutates_args=())
def suppress(
    boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float, max_boxes: int
) -> Tensor:
    """Non-maximum suppression of each class of each group, of which `max_boxes` are kept at most.

    Of boxes `(G, N, 4)` with scores `(G, C, N)`, one goes when its IoU with a kept one is greater
    than `iou_threshold`, or its score is not greater than `score_threshold`.

    Returns:
        `(G, C, N)`, the scores of the boxes that are kept, and 0 for others.
    """
    kept = torch.zeros_like(scores)
    for group in range(scores.shape[0]):
        for score, out in zip(scores[group], kept[group], strict=True):
            index = (score > score_threshold).nonzero().squeeze(1)
            best = torchvision.ops.nms(boxes[group, index], score[index], iou_threshold)
            index = index[best[:max_boxes]]
            out[index] = score[index]
    return kept


@suppress.register_fake
def _(boxes: Tensor, scores: Tensor, *others: Any) -> Tensor:
    return torch.empty_like(scores)


@torch.library.custom_op("swin_mm::pool_rois", mutates_args=())
def pool_rois(
    maps: Sequence[Tensor],
    boxes: Tensor,
    levels: Tensor,
    scales: Sequence[float],
    output_size: Sequence[int],
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """RoIAlign of boxes, each from the map of its level.

    Args:
        maps: Of each level, `(B, C, H_i, W_i)`.
        boxes: `(B, K, 4)`, x1, y1, x2, y2 in pixels.
        levels: `(B, K)` int64.
        scales: Of each level, pixels of the map in a pixel of the image.
        output_size: `(h, w)`.
        sampling_ratio: Points along a side of an output cell; 0 for one a pixel of the map.
        aligned: Whether pixels are where their centres are.

    Returns:
        `(B*K, C, h, w)`.
    """
    count, num_boxes = boxes.shape[:2]
    image = torch.arange(count, device=boxes.device)[:, None].expand(count, num_boxes)
    rois = torch.cat([image.flatten()[:, None].to(boxes.dtype), boxes.flatten(0, 1)], dim=1)
    flat = levels.flatten()
    out = maps[0].new_zeros(rois.shape[0], maps[0].shape[1], *output_size)
    for level, (features, scale) in enumerate(zip(maps, scales, strict=True)):
        index = (flat == level).nonzero().squeeze(1)
        pooled = torchvision.ops.roi_align(
            features, rois[index], tuple(output_size), scale, sampling_ratio, aligned
        )
        out = out.index_put((index,), pooled)
    return out


@pool_rois.register_fake
def _(
    maps: Sequence[Tensor],
    boxes: Tensor,
    levels: Tensor,
    scales: Sequence[float],
    output_size: Sequence[int],
    *others: Any,
) -> Tensor:
    return maps[0].new_empty(boxes.shape[0] * boxes.shape[1], maps[0].shape[1], *output_size)


@torch.library.custom_op("swin_mm::resize_to", mutates_args=())
def resize_to(x: Tensor, size: Tensor, align_corners: bool) -> Tensor:
    """Bilinear interpolation of `(B, C, H, W)` to a size `(h, w)` that is an input, int64."""
    pair: list[Any] = [side.item() for side in size.unbind()]
    for side in pair:
        torch._check(side >= 1)
    return F.interpolate(x, pair, mode="bilinear", align_corners=align_corners).contiguous()


@resize_to.register_fake
def _(x: Tensor, size: Tensor, align_corners: bool) -> Tensor:
    sizes = torch.library.get_ctx()
    height, width = sizes.new_dynamic_size(), sizes.new_dynamic_size()
    return x.new_empty(x.shape[0], x.shape[1], height, width)
