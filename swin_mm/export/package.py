"""Packages of AOTInductor: compiled code that calls operators of PyTorch and torchvision alone.

The operators of `operators` are written in Python, which a package does not hold. `DECOMPOSITIONS`
has each as operators that it can call.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
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


OWN: list[Any] = [
    operators.window_attention,
    operators.window_context,
    operators.pool_rois,
    operators.resize_to,
]
DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    **{operator._opoverload: operator._init_fn for operator in OWN},
    operators.suppress._opoverload: suppress,
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
