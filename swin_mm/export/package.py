"""Packages of AOTInductor: compiled code that calls operators of PyTorch and torchvision alone.

The operators of `operators` are written in Python, which a package does not hold. `DECOMPOSITIONS`
has each as operators that it can call.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from swin_mm.export import operators
from swin_mm.export.runtime import METADATA_RECORD


def suppress(
    boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float, max_boxes: int
) -> Tensor:
    """`operators.suppress`, by one NMS for all; more than `max_boxes` may be left."""
    index = (scores > score_threshold).flatten().nonzero().squeeze(1)
    number, place = index // scores.shape[2], index % scores.shape[2]
    # Classes are moved apart, in float64 so that no bit of a box is lost.
    apart = (boxes.amax() - boxes.amin() + 1).double()
    moved = boxes[number // scores.shape[1], place].double() + (number * apart)[:, None]
    # Compiled code takes for granted that NMS keeps two boxes: so there are two more, elsewhere.
    steps = torch.arange(4, device=boxes.device).repeat_interleave(2).view(2, 4)
    more = boxes.amin().double() + apart * (steps - 4)
    score = torch.cat([scores.flatten()[index], scores.new_zeros(2)])
    index = torch.cat([index, index.new_full((2,), scores.numel())])
    kept = torchvision.ops.nms(torch.cat([moved, more]), score.double(), iou_threshold)
    out = scores.new_zeros(scores.numel() + 1).index_put((index[kept],), score[kept])
    return out[:-1].view(scores.shape)


def pool_rois(
    maps: Sequence[Tensor],
    boxes: Tensor,
    levels: Tensor,
    scales: Sequence[float],
    output_size: Sequence[int],
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """`operators.pool_rois`, each box from the map of its level alone."""
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


def resize_to(x: Tensor, size: Tensor, align_corners: bool) -> Tensor:
    """`operators.resize_to`."""
    pair: list[Any] = [side.item() for side in size.unbind()]
    for side in pair:
        torch._check(side >= 1)
    return F.interpolate(x, pair, mode="bilinear", align_corners=align_corners).contiguous()


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    operators.window_attention._opoverload: operators.window_attention._init_fn,
    operators.window_context._opoverload: operators.window_context._init_fn,
    operators.suppress._opoverload: suppress,
    operators.pool_rois._opoverload: pool_rois,
    operators.resize_to._opoverload: resize_to,
}


def compile_package(recorded: torch.export.ExportedProgram, file: Path) -> None:
    """Compiles a recorded model for this machine's processor and writes it as a `.pt2` file."""
    from torch._inductor import aoti_compile_and_package

    program = recorded.run_decompositions(DECOMPOSITIONS)
    aoti_compile_and_package(program, package_path=str(file))


def write_package(source: Path, file: Path, metadata: dict[str, Any]) -> None:
    """Writes a copy of a package with other metadata."""
    with ZipFile(source) as old, ZipFile(file, "w") as new:
        for record in old.infolist():
            if not record.filename.endswith(METADATA_RECORD):
                new.writestr(record, old.read(record))
        root = old.namelist()[0].partition("/")[0]
        new.writestr(f"{root}/{METADATA_RECORD}", json.dumps(metadata))
