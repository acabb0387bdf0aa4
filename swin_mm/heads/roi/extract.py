"""Features of boxes from the levels of a pyramid."""

from collections.abc import Sequence

import torch
from mmcv.ops import RoIAlign
from mmdet.models.roi_heads.roi_extractors import BaseRoIExtractor, SingleRoIExtractor
from torch import Tensor

from swin_mm.heads.ops import roi_align


def lay_out(maps: Sequence[Tensor]) -> list[Tensor]:
    """Copies maps `(B, C, H, W)` into the memory format that RoIAlign wants, once for all calls."""
    on_cpu = [level.device.type == "cpu" for level in maps]
    layouts = [torch.channels_last if here else torch.contiguous_format for here in on_cpu]
    return [
        level.contiguous(memory_format=layout) for level, layout in zip(maps, layouts, strict=True)
    ]


def extract_features(extractor: BaseRoIExtractor, maps: Sequence[Tensor], rois: Tensor) -> Tensor:
    """What `extractor` gives, with one wait for the device in place of one a level.

    Boxes are sorted by level, so that the counts of all levels are read at once. mmdet rounds
    boxes to the dtype of the maps, which moves them by up to 4 pixels in bfloat16; here their
    level, and on a CPU their place, is that of the boxes given.

    Args:
        extractor: mmdet's; any but a `SingleRoIExtractor` of `RoIAlign`s is called as it is.
        maps: Of each level, `(B, C, H, W)`; more than the extractor takes may be given.
        rois: `(R, 5)`, image index, then x1, y1, x2, y2 in pixels.

    Returns:
        `(R, C, h, w)`.
    """
    maps = maps[: extractor.num_inputs]
    layers = extractor.roi_layers
    is_plain = type(extractor) is SingleRoIExtractor and type(layers[0]) is RoIAlign
    if not is_plain:
        return extractor(maps, rois)
    size = layers[0].output_size
    if len(maps) == 1:
        return _pool(layers[0], maps[0], rois) if len(rois) else _nothing(maps[0], size)
    levels = extractor.map_roi_levels(rois, len(maps))  # (R,)
    # A box that is no number belongs to no level: it comes last, and is zeros, as in mmdet.
    levels = levels.masked_fill(levels < 0, len(maps))
    order = levels.argsort(stable=True)
    numbers = torch.arange(len(maps), device=levels.device)
    counts = (levels == numbers[:, None]).sum(1).tolist()
    rest = len(rois) - sum(counts)
    parts = [
        _pool(layer, level, part) if len(part) else _nothing(level, size)
        for layer, level, part in zip(
            layers, maps, rois[order].split([*counts, rest])[:-1], strict=True
        )
    ]
    parts.append(maps[0].new_zeros(rest, maps[0].shape[1], *size))
    if not torch.is_grad_enabled():
        # Parts without boxes would turn the others' layout, in which convolutions are faster. In
        # training they do, so that convolutions round as mmdet's.
        parts = [part for part in parts if len(part)] or parts[:1]
    features = torch.cat(parts)
    return torch.empty_like(features).index_copy_(0, order, features)


def _nothing(level: Tensor, size: tuple[int, int]) -> Tensor:
    """Features of no boxes: an empty part of the map, which so keeps its place in the graph."""
    return level[:0, :, :1, :1].expand(-1, -1, *size)


def _pool(layer: RoIAlign, level: Tensor, rois: Tensor) -> Tensor:
    """What `layer` gives; on a CPU faster."""
    if layer.pool_mode != "avg" or roi_align.why_not_sparse(level, rois) is not None:
        return layer(level.contiguous(), rois.type_as(level))
    return roi_align.roi_align(
        level, rois, layer.output_size, layer.spatial_scale, layer.sampling_ratio, layer.aligned
    )
