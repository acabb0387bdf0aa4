"""Polygons drawn as bitmaps inside boxes, for many boxes at once and on any device.

pycocotools draws one polygon at a time on the CPU. What it computes is a parity: it walks along the
boundary on a grid five times as fine as the bitmap's, notes the places where the walk passes from
one column's middle to the next cell, and fills between the first and the second note, the third and
the fourth and so on. Each note depends on one edge and one column alone, so here all edges and
columns are computed side by side, and the parity by a running sum.

Source: `rleFrPoly` in pycocotools' `maskApi.c`, whose rounding is kept to the bit.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

FINE = 5  # steps of the boundary's walk in a pixel
MIDDLE = FINE // 2  # a column is entered after this step


class Polygons(NamedTuple):
    """Polygons of objects, edge by edge; the objects of all images follow one another."""

    starts: Tensor  # (E, 2) float64, x and y of the first corner of each edge, in pixels
    ends: Tensor  # (E, 2) float64, of its second corner
    part: Tensor  # (E,) int64, to which polygon of its object an edge belongs
    first_edge: Tensor  # (G,) int64, place of each object's first edge
    edges: Tensor  # (G,) int64, number of each object's edges
    parts: Tensor  # (G,) int64, number of each object's polygons


def pack_polygons(objects: Sequence[Sequence[np.ndarray]], device: torch.device) -> Polygons:
    """Prepares the polygons of each object, `(2*K,)`, x and y in turns, for `draw_polygons`.

    Raises:
        ValueError: A polygon has no three corners.
    """
    corners, following, part, edges = [np.zeros((0, 2))], [np.zeros((0, 2))], [], []
    for polygons in objects:
        for i, polygon in enumerate(polygons):
            if len(polygon) < 6 or len(polygon) % 2:
                raise ValueError(
                    "a polygon needs x and y of three corners at least, got "
                    f"{len(polygon)} numbers: leave it out"
                )
            points = np.asarray(polygon, dtype=np.float64).reshape(-1, 2)
            corners.append(points)
            following.append(np.roll(points, -1, axis=0))
            part += [i] * len(points)
        edges.append(sum(len(polygon) // 2 for polygon in polygons))
    counts = np.array(edges, dtype=np.int64)
    arrays = (
        np.concatenate(corners),
        np.concatenate(following),
        np.array(part, dtype=np.int64),
        counts.cumsum() - counts,
        counts,
        np.array([len(polygons) for polygons in objects], dtype=np.int64),
    )
    return Polygons(*(torch.from_numpy(a).to(device, non_blocking=True) for a in arrays))


def draw_polygons(
    polygons: Polygons, objects: Tensor, boxes: Tensor, size: tuple[int, int]
) -> Tensor:
    """Draws objects as they look inside boxes, stretched to one size.

    It waits for the device once, for the number of edges. `objects`, `(N,)` int64, are those
    to draw inside `boxes`, `(N, 4)`, x1, y1, x2, y2 in pixels; bitmaps are `(N, *size)`, bool.
    """
    height, width = size
    pairs = polygons.edges[objects]  # (N,) edges to draw for each box
    layers = polygons.parts[objects]  # (N,) bitmaps, one for each polygon
    totals = torch.stack((pairs.sum(), layers.sum())).tolist()
    box = torch.arange(len(boxes), device=boxes.device)
    first_pair, first_layer = pairs.cumsum(0) - pairs, layers.cumsum(0) - layers
    box_of_pair = box.repeat_interleave(pairs, output_size=totals[0])
    within = torch.arange(totals[0], device=boxes.device) - first_pair[box_of_pair]
    edge = polygons.first_edge[objects][box_of_pair] + within
    layer = first_layer[box_of_pair] + polygons.part[edge]  # (T,)

    origin, scale = _mapping(boxes, size)
    origin, scale = origin[box_of_pair], scale[box_of_pair]
    starts = _to_fine((polygons.starts[edge] - origin) * scale)
    ends = _to_fine((polygons.ends[edge] - origin) * scale)
    crosses, row = _crossings(starts, ends, size)  # (T, width) each
    # Cells of a bitmap are counted column by column; a place below the last row is the next
    # column's first. The one cell too many takes what is below the last column.
    column = torch.arange(width, device=boxes.device)
    cells = height * width + 1
    cell = layer[:, None] * cells + column * height + row
    toggles = torch.zeros(totals[1] * cells, dtype=torch.int, device=boxes.device)
    toggles.index_add_(0, cell.flatten(), crosses.int().flatten())
    parity = toggles.view(totals[1], cells)[:, :-1].cumsum(1) % 2
    box_of_layer = box.repeat_interleave(layers, output_size=totals[1])
    filled = torch.zeros(len(boxes), height * width, dtype=parity.dtype, device=boxes.device)
    filled.index_add_(0, box_of_layer, parity)  # an object is the union of its polygons
    return filled.view(len(boxes), width, height).mT > 0


def _mapping(boxes: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Origin and scale, `(N, 2)` float64 each, from the image to the bitmap of a box.

    The scale is rounded to the precision of the boxes, as mmdet's is; boxes count as a pixel wide
    at least.
    """
    width, height = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1).unbind(1)
    # A number over a tensor would be rounded twice: once the reciprocal, once the product.
    columns, rows = torch.full_like(width, size[1]), torch.full_like(height, size[0])
    return boxes[:, :2].double(), torch.stack((columns / width, rows / height), dim=1).double()


def _to_fine(points: Tensor) -> Tensor:
    """Places on the fine grid, int64; rounded towards zero after adding a half, as C does it."""
    return (FINE * points + 0.5).trunc().long()


def _crossings(starts: Tensor, ends: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Where edges enter columns; corners `(T, 2)` int64 are x and y on the fine grid.

    Returns:
        Whether an edge enters a column, `(T, width)` bool, and in which row then, 0 to height.
    """
    height, width = size
    (dx, dy) = (ends - starts).abs().unbind(1)
    is_steep = dx < dy
    # The walk goes along the longer side, upwards.
    is_flipped = torch.where(
        is_steep, starts[:, 1] > ends[:, 1], starts[:, 0] > ends[:, 0]
    ).unsqueeze(1)
    xs, ys = torch.where(is_flipped, ends, starts).unsqueeze(2).unbind(1)  # (T, 1) each
    xe, ye = torch.where(is_flipped, starts, ends).unsqueeze(2).unbind(1)
    is_steep = is_steep.unsqueeze(1)
    rise = torch.where(is_steep, xe - xs, ye - ys).double()
    slope = rise / torch.maximum(dx, dy).clamp(min=1).unsqueeze(1)

    last = FINE * torch.arange(width, device=starts.device) + MIDDLE  # (width,) before the column
    crosses = (torch.minimum(xs, xe) <= last) & (torch.maximum(xs, xe) > last)
    # Flat edges take a step in x at a time: y is known before and after the step.
    steps = last - xs
    before = (ys + slope * steps + 0.5).trunc()
    after = (ys + slope * (steps + 1) + 0.5).trunc()
    flat = torch.minimum(before, after).long()
    # Steep ones take a step in y: the first step at which x has passed is near the exact place.
    nearly = ((last + 0.5 - xs) / torch.where(slope == 0, 1, slope)).ceil()

    def has_passed(step: Tensor) -> Tensor:
        x = xs + slope * step + 0.5
        return torch.where(slope > 0, x >= last + 1, x < last + 1)

    step = torch.where(
        has_passed(nearly - 1), nearly - 1, torch.where(has_passed(nearly), nearly, nearly + 1)
    )
    steep = ys + step.long() - 1
    row = (torch.where(is_steep, steep, flat) + MIDDLE) // FINE
    return crosses, row.clamp(0, height)
