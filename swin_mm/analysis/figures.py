"""Pictures of an analysis (PNG): confusions, scores by class, precision by recall."""

from collections.abc import Mapping, Sequence
from io import BytesIO

import numpy as np
from matplotlib.figure import Figure

DPI = 110
MAX_NAMED = 40  # classes whose names are written at a matrix
MAX_NUMBERED = 15  # classes whose shares are written into a matrix
MAX_BARS = 150
BLUE, GREY = "#3b6ea8", "#b8b8b8"


def draw_confusions(matrix: np.ndarray, names: Sequence[str], unit: str) -> bytes:
    """Draws counts by what is true and what is predicted, `(N, N)`, as the shares of each row."""
    totals = matrix.sum(1, keepdims=True)
    shares = np.divide(matrix, totals, out=np.full(matrix.shape, np.nan), where=totals > 0)
    side = min(max(4.5, 0.42 * len(names) + 2), 12)
    figure = _new_figure((side + 1.2, side))
    axes = figure.add_subplot()
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_title(f"Share of the {unit} of each true class", fontsize=10)
    if len(names) <= MAX_NAMED:
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
        axes.set_yticks(range(len(names)), names, fontsize=8)
    if len(names) <= MAX_NUMBERED:
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.005:  # what is 0.00 otherwise
                colour = "white" if share > 0.5 else "black"
                axes.text(
                    column, row, f"{share:.2f}", ha="center", va="center", color=colour, fontsize=7
                )
    figure.colorbar(image, ax=axes, shrink=0.8)
    return _to_png(figure)


def draw_bars(values: Sequence[float], names: Sequence[str], label: str) -> bytes:
    """Draws a bar from 0 to 1 for each class, the lowest first; NaN draws none."""
    order = np.argsort(np.nan_to_num(np.asarray(values, dtype=float), nan=2.0), kind="stable")
    order = order[:MAX_BARS]
    figure = _new_figure((7, max(1.6, 0.2 * len(order) + 0.9)))
    axes = figure.add_subplot()
    axes.barh(range(len(order)), [values[i] for i in order], color=BLUE, height=0.75)
    for place, index in enumerate(order):
        if not np.isnan(values[index]):
            axes.text(values[index] + 0.01, place, f"{values[index]:.3f}", va="center", fontsize=7)
    axes.set_yticks(range(len(order)), [names[i] for i in order], fontsize=8)
    axes.set(xlim=(0, 1.08), ylim=(len(order) - 0.5, -0.5), xlabel=label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines["bottom"].set_bounds(0, 1)
    return _to_png(figure)


def draw_curves(
    recalls: np.ndarray,
    curves: np.ndarray,
    names: Sequence[str],
    means: Mapping[str, np.ndarray],
) -> bytes:
    """Draws precision over recall of each class and, by their names, means over the classes.

    Shapes are those of `precision_curves`; NaN draws none.
    """
    figure = _new_figure((7.5, 5))
    axes = figure.add_subplot()
    few = len(names) <= MAX_NUMBERED
    for name, curve in zip(names, curves, strict=True):
        if not np.isnan(curve).all():
            axes.plot(
                recalls, curve, color=None if few else GREY, lw=0.9, label=name if few else ""
            )
    for style, (name, curve) in zip(("-", "--", ":"), means.items(), strict=False):
        label = f"all, {name}: {curve.mean():.3f}"
        axes.plot(recalls, curve, style, color="black", lw=2, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    return _to_png(figure)


def _new_figure(size: tuple[float, float]) -> Figure:
    return Figure(figsize=size, dpi=DPI, facecolor="white", layout="constrained")


def _to_png(figure: Figure) -> bytes:
    file = BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()
