"""Sheets of pictures (PNG): samples of a data set, and predictions beside the ground truth.

Images are `(H, W, 3)`, uint8, RGB; annotations are None for a bare image; palettes have a colour
for each class, RGB 0-255. The folder of a file is made if absent. All raise `ValueError` where
annotations do not fit their image, classes or palette.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from swin_mm.structures import IGNORED, Objects, to_pixels

# Lengths in inches.
CELL = 2.3  # side of the square that holds one picture
MARGIN = 0.08  # between pictures
GROUP_GAP = 0.12  # and between pairs of them
TITLE = 0.32  # height of the titles above
LEGEND_LINE = 0.3  # height of one line of the legend below
LEGEND_ENTRY = 1.3  # width of one of its entries
TAG_HEIGHT, TAG_LETTER = 0.14, 0.062  # of the labels on boxes
KEY_LINE, KEY_LETTER, KEY_PATCH = 0.2, 0.075, 0.4  # of the legend below a large picture
LARGE = 12.0  # longer side that a large picture is drawn at, so that its letters can be read

DPI = 110
LEAST_DPI = 6  # FreeType draws no letters below half a pixel
TAB20 = 20  # colours of matplotlib's table of this name
MASK_OPACITY, MAP_OPACITY = 0.45, 0.65
MAX_LEGEND = 40  # classes
Colour = Sequence[int]
Shares = tuple[float, float, float]  # of red, green and blue, 0 to 1

# What is drawn over an image: objects, or a label map (H, W) of class indices (255: no label).
Annotation = Objects | np.ndarray


@dataclass(frozen=True)
class Row:
    """An image, what is in it and what was found."""

    image: np.ndarray
    truth: Annotation
    prediction: Annotation


def choose_palette(meta: dict[str, Any]) -> list[Colour]:
    """Finds a colour for each class.

    Args:
        meta: Meta information of a data set. Its palette may be absent or a word such as `random`;
            where the config names classes of its own it is still that of COCO's eighty.
    """
    count, palette = len(meta["classes"]), meta.get("palette")
    if isinstance(palette, list | tuple) and len(palette) >= count:
        return list(palette[:count])
    table = [colormaps["tab20"](i)[:3] for i in range(TAB20)]
    return [tuple(round(255 * part) for part in table[i % len(table)]) for i in range(count)]


def prediction_sheet(
    rows: Sequence[Row],
    path: str | Path,
    classes: Sequence[str],
    palette: Sequence[Colour],
    pairs: int = 3,
    min_score: float = 0.5,
) -> None:
    """Draws predictions beside the ground truth: as many pairs in a line.

    Predictions below `min_score` are left out.
    """
    panels: list[tuple[np.ndarray, Annotation | None]] = []
    for row in rows:
        found = row.prediction
        if isinstance(found, Objects) and found.scores is not None:
            found = found.take(found.scores >= min_score)
        panels += [(row.image, row.truth), (row.image, found)]
    sample_sheet(panels, path, classes, palette, 2 * pairs, ("ground truth", "prediction"))


def sample_sheet(
    panels: Sequence[tuple[np.ndarray, Annotation | None]],
    path: str | Path,
    classes: Sequence[str],
    palette: Sequence[Colour],
    columns: int = 6,
    titles: Sequence[str] = (),
) -> None:
    """Draws samples of a data set, line by line.

    Args:
        panels: Images, each with its annotation, or None to draw it bare.
        columns: Pictures beside one another.
        titles: Above the first columns, which belong together in groups of so many.
    """
    if not panels:
        raise ValueError("a sheet needs at least one picture, got none")
    if len(palette) != len(classes):
        raise ValueError(f"{len(classes)} classes need as many colours, got {len(palette)}")
    for image, annotation in panels:
        _check(image, annotation, len(classes))
    colours = _as_shares(palette)
    columns = min(columns, len(panels))
    lines = -(-len(panels) // columns)
    group = len(titles) or columns
    used = sorted(set().union(*(_labels(annotation) for _, annotation in panels)))[:MAX_LEGEND]
    legend_columns = max(1, int(columns * CELL / LEGEND_ENTRY))
    top = TITLE if titles else 0
    bottom = LEGEND_LINE * -(-len(used) // legend_columns)
    width = columns * CELL + (columns // group - 1) * GROUP_GAP
    height = lines * CELL + top + bottom
    side = CELL - MARGIN
    figure = _open_figure(width, height, DPI)
    for index, (image, annotation) in enumerate(panels):
        line, column = divmod(index, columns)
        left = column * CELL + column // group * GROUP_GAP
        below = height - top - (line + 1) * CELL
        corner = ((left + MARGIN / 2) / width, (below + MARGIN / 2) / height)
        axes = figure.add_axes((*corner, side / width, side / height))
        if titles:  # pictures narrower than their cell stand close to their partner
            axes.set_anchor("E" if column % group == 0 else "W")
        if titles and line == 0:
            x, y = (left + CELL / 2) / width, 1 - top / 2 / height
            figure.text(x, y, titles[column % group], ha="center", va="center", fontsize=11)
        _draw_panel(axes, image, annotation, classes, colours)
    if used:
        columns = min(len(used), legend_columns)
        _add_legend(figure, used, classes, colours, loc="lower center", ncols=columns, fontsize=10)
    _save(figure, path)


def draw_large(
    image: np.ndarray,
    annotation: Annotation | None,
    path: str | Path | BinaryIO,
    classes: Sequence[str],
    palette: Sequence[Colour],
    legend: bool = False,
) -> None:
    """Draws one picture at the size of its image, as on a sheet.

    Args:
        path: Where the PNG goes, or a file object.
        legend: Whether to say below a label map which colour is which class: of those that occur,
            the 40 largest. The picture is as much higher then.
    """
    _check(image, annotation, len(classes))
    height, width = image.shape[:2]
    # Beside a small picture lines and letters are as large as on a sheet; beside a larger one as
    # large as in print, for it holds more of them.
    side = max(height, width)
    dpi = max(LEAST_DPI, min(side / (CELL - MARGIN), max(DPI, side / LARGE)))
    used: list[int] = []
    below, columns = 0, 1  # pixels of the legend, and its columns
    if legend and isinstance(annotation, np.ndarray):
        present, areas = np.unique(annotation[annotation != IGNORED], return_counts=True)
        used = sorted(present[np.argsort(-areas, kind="stable")][:MAX_LEGEND].tolist())
        longest = max((len(classes[label]) for label in used), default=0)
        columns = max(1, int(width / dpi / (KEY_LETTER * longest + KEY_PATCH)))
        below = round(dpi * KEY_LINE * -(-len(used) // columns))
    total = height + below
    figure = _open_figure(width / dpi, total / dpi, dpi)
    colours = _as_shares(palette)
    axes = figure.add_axes((0, below / total, 1, height / total))
    _draw_panel(axes, image, annotation, classes, colours)
    if used:
        place = (0, 0, 1, below / total)
        layout = dict(loc="center left", bbox_to_anchor=place, borderaxespad=0.2, borderpad=0)
        _add_legend(figure, used, classes, colours, ncols=columns, fontsize=8, **layout)
    _save(figure, path)


def _open_figure(width: float, height: float, dpi: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white")
    FigureCanvasAgg(figure)  # draws without a display, whatever backend the process uses
    return figure


def _add_legend(
    figure: Figure, used: list[int], classes: Sequence[str], colours: list[Shares], **layout: Any
) -> None:
    patches = [Patch(color=colours[label], label=classes[label]) for label in used]
    figure.legend(handles=patches, frameon=False, handlelength=1.0, handleheight=1.0, **layout)


def _save(figure: Figure, path: str | Path | BinaryIO) -> None:
    if isinstance(path, str | Path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")


def _as_shares(palette: Sequence[Colour]) -> list[Shares]:
    return [(red / 255, green / 255, blue / 255) for red, green, blue in palette]


def _check(image: np.ndarray, annotation: Annotation | None, num_classes: int) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"an image must be (H, W, 3) uint8, got {image.shape} {image.dtype}")
    if annotation is None:
        return
    if isinstance(annotation, Objects):
        labels, masks = annotation.labels, annotation.masks
        size = tuple(masks[0]["size"]) if masks else None
    else:
        labels, size = annotation[annotation != IGNORED], annotation.shape
    if size is not None and size != image.shape[:2]:
        raise ValueError(f"masks of {size} pixels do not fit an image of {image.shape[:2]}")
    if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
        raise ValueError(
            f"labels must be indices of the {num_classes} classes, "
            f"got {labels.min()} to {labels.max()}"
        )


def _labels(annotation: Annotation | None) -> set[int]:
    """Returns the classes that occur."""
    if annotation is None:
        return set()
    labels = annotation.labels if isinstance(annotation, Objects) else annotation
    return set(np.unique(labels).tolist()) - {IGNORED}


def _draw_panel(
    axes: Axes,
    image: np.ndarray,
    annotation: Annotation | None,
    classes: Sequence[str],
    colours: list[Shares],
) -> None:
    axes.imshow(image, interpolation="bicubic")
    axes.set_axis_off()
    if isinstance(annotation, Objects):
        _draw_instances(axes, annotation, classes, colours)
    elif annotation is not None:
        _draw_label_map(axes, annotation, colours)
    height, width = image.shape[:2]
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)


def _draw_instances(
    axes: Axes, instances: Objects, classes: Sequence[str], colours: list[Shares]
) -> None:
    # Least certain first, so that the best predictions lie on top.
    order = list(range(len(instances.labels)))
    if instances.scores is not None:
        order = np.argsort(instances.scores, kind="stable").tolist()
    for index in order:
        label = int(instances.labels[index])
        colour = colours[label]
        if instances.masks is not None:
            _draw_mask(axes, to_pixels(instances.masks[index]), colour)
        if instances.boxes is not None:
            left, top, right, bottom = instances.boxes[index] - 0.5  # pixel 0 spans -0.5 to 0.5
            size = (right - left, bottom - top)
            axes.add_patch(Rectangle((left, top), *size, fill=False, ec=colour, lw=1, ls=":"))
            text = classes[label]
            if instances.scores is not None:
                text = f"{text} {100 * instances.scores[index]:.0f}"
            _draw_tag(axes, left, top, text, colour)


def _draw_mask(axes: Axes, mask: np.ndarray, colour: Shares) -> None:
    tint = np.zeros((*mask.shape, 4))
    tint[mask.astype(bool)] = (*colour, MASK_OPACITY)
    axes.imshow(tint, interpolation="nearest")
    # A border of zeros closes the outlines of masks that reach the edge of the image.
    height, width = mask.shape
    grid = np.arange(-1, width + 1), np.arange(-1, height + 1), np.pad(mask.astype(float), 1)
    axes.contour(*grid, levels=[0.5], colors=[colour], linewidths=1.6)


def _draw_tag(axes: Axes, left: float, top: float, text: str, colour: Shares) -> None:
    """Writes on the upper left corner of a box, moved as needed to stay in the picture."""
    height, width = axes.images[0].get_size()
    place = axes.get_position(original=True)
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure_width, figure_height = figure.get_size_inches()
    side = max(place.width * figure_width, place.height * figure_height)
    inch = max(height, width) / side  # in pixels of the image
    brightness = 0.3 * colour[0] + 0.6 * colour[1] + 0.1 * colour[2]
    axes.text(
        max(0, min(left, width - TAG_LETTER * len(text) * inch)),
        max(top, TAG_HEIGHT * inch),
        text,
        fontsize=6.5,
        color="black" if brightness > 0.55 else "white",
        va="bottom",
        bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.8},
    )


def _draw_label_map(axes: Axes, labels: np.ndarray, colours: list[Shares]) -> None:
    tint = np.zeros((*labels.shape, 4))
    for label, colour in enumerate(colours):
        tint[labels == label] = (*colour, MAP_OPACITY)
    axes.imshow(tint, interpolation="nearest")
