"""One sheet (PNG) of what a model attends to at a pixel, and of its feature maps."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from swin_mm.analysis.explain import BlockAttention, Explanation

CELL = 2.1  # inches, side of a picture with its title
DPI = 110
COLUMNS = 6  # blocks beside one another
MARK = "#00e5ff"
OPACITY = 0.8  # of the largest weight
MARGIN = 0.5  # of a window, around it
VISIBLE = 1e-6  # weights below this share of the largest are outside of the token's region


def draw_explanation(found: Explanation, path: str | Path) -> None:
    """Draws the sheet: a line for each stage, its feature map first, then its blocks.

    Feature maps are coloured by their three main components. Blocks show the surroundings of the
    pixel's window, tinted by the attention weights, mean over the heads; each has a scale of its
    own, and its largest weight is written below.
    """
    lines: list[tuple[int, Sequence[BlockAttention], bool]] = []
    for stage in range(len(found.token_sizes)):
        blocks = [block for block in found.blocks if block.stage == stage]
        for start in range(0, len(blocks), COLUMNS):
            lines.append((stage, blocks[start : start + COLUMNS], start == 0))
    columns = 1 + max(len(blocks) for _, blocks, _ in lines)
    height = 1.35 * CELL + len(lines) * 1.2 * CELL
    figure = Figure((columns * CELL, height), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(len(lines) + 1, columns, height_ratios=[1.1, *[1] * len(lines)])
    axes = figure.add_subplot(grid[0, : min(2, columns)])
    _show_picture(axes, found, f"pixel {found.pixel[0]}, {found.pixel[1]}")
    for row, (stage, line, has_map) in enumerate(lines, start=1):
        if has_map and stage in found.maps:
            axes = figure.add_subplot(grid[row, 0])
            _show_picture(axes, found, f"stage {stage + 1}: feature map")
            axes.imshow(
                colour_map(found.maps[stage]), extent=_extent(found, stage, found.maps[stage])
            )
            _keep_to_picture(axes, found)
        for column, block in enumerate(line, start=1):
            _show_attention(figure.add_subplot(grid[row, column]), found, block)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")


def colour_map(features: np.ndarray) -> np.ndarray:
    """Colours a feature map `(C, H, W)` by its three main components, `(H, W, 3)` in 0 to 1."""
    tokens = features.reshape(len(features), -1).astype(np.float64)
    tokens = tokens - tokens.mean(1, keepdims=True)
    _, vectors = np.linalg.eigh(tokens @ tokens.T)  # the largest last
    main = vectors[:, :-4:-1]
    # A component and its negative are one: the sign is chosen, so that repeated runs agree.
    main = main * np.sign(main[np.abs(main).argmax(0), np.arange(main.shape[1])])
    shares = main.T @ tokens
    low, high = np.percentile(shares, (2, 98), axis=1)[..., None]
    shares = ((shares - low) / np.maximum(high - low, 1e-12)).clip(0, 1)
    return shares.reshape(-1, *features.shape[1:]).transpose(1, 2, 0)


def _show_picture(axes: Axes, found: Explanation, title: str) -> None:
    axes.imshow(found.image)
    for color, width in (("black", 3.2), (MARK, 1.6)):  # to be seen on every colour
        axes.plot(*found.pixel, "+", color=color, markersize=9, markeredgewidth=width, zorder=3)
    axes.set_title(title, fontsize=8)
    axes.set(xticks=[], yticks=[])


def _keep_to_picture(axes: Axes, found: Explanation) -> None:
    height, width = found.image.shape[:2]
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))


def _extent(
    found: Explanation, stage: int, tokens: np.ndarray
) -> tuple[float, float, float, float]:
    """Where a map lies in the picture: left, right, bottom, top."""
    height, width = found.token_sizes[stage]
    return -0.5, tokens.shape[-1] * width - 0.5, tokens.shape[-2] * height - 0.5, -0.5


def _show_attention(axes: Axes, found: Explanation, block: BlockAttention) -> None:
    name = f"{block.stage + 1}.{block.block + 1}" + (", shifted" if block.is_shifted else "")
    _show_picture(axes, found, f"block {name}")
    mean = block.weights.mean(0)  # (H, W)
    largest = max(float(mean.max()), np.finfo(np.float32).tiny)
    tint = colormaps["inferno"](mean / largest)
    tint[..., 3] = OPACITY * (mean / largest) ** 0.5
    axes.imshow(tint, extent=_extent(found, block.stage, mean), interpolation="nearest")
    rows, columns = np.nonzero(mean > VISIBLE * largest)
    height, width = found.token_sizes[block.stage]
    left, right = columns.min() * width - 0.5, (columns.max() + 1) * width - 0.5
    top, bottom = rows.min() * height - 0.5, (rows.max() + 1) * height - 0.5
    size = right - left, bottom - top
    axes.add_patch(Rectangle((left, top), *size, fill=False, ec=MARK, lw=1))
    axes.set_xlim(left - MARGIN * size[0], right + MARGIN * size[0])
    axes.set_ylim(bottom + MARGIN * size[1], top - MARGIN * size[1])
    notes = [f"at most {largest:.2f}"]
    if (padding := float(block.padding.mean())) > 0.005:
        notes.append(f"padding {padding:.2f}")
    notes += [f"{scale} {share:.2f}" for scale, share in block.context.items()]
    axes.set_xlabel(", ".join(notes), fontsize=7)
