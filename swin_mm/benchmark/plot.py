"""Pictures of a result: bars beside one another, or lines over what a sweep changes."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from swin_mm.benchmark.report import MIB, OURS, Case, Row, milliseconds

OUR_COLOUR = "#1f5f99"
# A colour for each other library, whatever else is in the picture.
COLOURS = {
    "mmdet": "#d1652c",
    "mmseg": "#b3962e",
    "timm": "#3b8a55",
    "torchvision": "#8b4d9e",
    "transformers": "#5c6670",
}
LINE_STYLES = {"eager": "-", "compile": "--", "graphs": ":", "compile+graphs": "-."}
HATCHES = {"eager": "", "compile": "//", "graphs": "..", "compile+graphs": "xx"}
WIDTH = 9.5  # inches
BAR = 0.34  # inches of height for each row
QUANTITIES = {
    "side": "image, megapixels (square)",
    "batch": "images in a batch",
    "window": "window, tokens on a side",
    "depth": "blocks in stage 3",
}


def draw(cases: Sequence[Case], sweep: str | None, caption: str, path: Path) -> bool:
    """Draws the result.

    Args:
        cases: The results.
        sweep: The quantity that was changed, for lines instead of bars.
        caption: What was measured and on what, above the picture.
        path: PNG file to write.

    Returns:
        Whether there was anything to draw.
    """
    if not any(row.seconds for case in cases for row in case.rows):
        return False
    figure = _draw_sweep(cases, sweep) if sweep else _draw_bars(cases)
    FigureCanvasAgg(figure)
    figure.suptitle(caption, fontsize=9, x=0.01, ha="left", color="#444444")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return True


def _colour(row: Row) -> str:
    return OUR_COLOUR if row.library == OURS else COLOURS[row.library]


def _draw_bars(cases: Sequence[Case]) -> Figure:
    has_memory = _has_memory(cases)
    rows = [[row for row in case.rows if row.seconds] for case in cases]
    heights = [len(shown) + 1.6 for shown in rows]
    size = (WIDTH, BAR * sum(heights) + 0.5 * len(cases) + 0.6)
    figure = Figure(figsize=size, dpi=130, layout="constrained")
    grid = figure.subplots(
        len(cases), 1 + has_memory, squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for axes, case, shown in zip(grid, cases, rows, strict=True):
        _draw_time_bars(axes[0], case, shown)
        if has_memory:
            _draw_memory_bars(axes[1], shown)
    return figure


def _draw_time_bars(axes: Axes, case: Case, rows: Sequence[Row]) -> None:
    places = range(len(rows))
    medians = [row.time.median * 1e3 for row in rows]
    spread = [
        [(row.time.median - row.time.low) * 1e3 for row in rows],
        [(row.time.high - row.time.median) * 1e3 for row in rows],
    ]
    bars = axes.barh(places, medians, xerr=spread, ecolor="#333333", capsize=2)
    for bar, row in zip(bars, rows, strict=True):
        _dress_bar(bar, row)
        axes.annotate(
            milliseconds(row.time.median),
            (row.time.high * 1e3, bar.get_y() + bar.get_height() / 2),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    if case.floor is not None:
        axes.axvline(case.floor * 1e3, color="#333333", linewidth=1, linestyle=":")
        axes.annotate(
            "floor",
            (case.floor * 1e3, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            fontsize=7,
        )
    axes.set_yticks(places, [row.name for row in rows], fontsize=8)
    axes.set_xlim(0, max(row.time.high for row in rows) * 1.12e3)
    _dress(axes, f"{case.title}\n", "ms a step, with the quantiles 20 and 80 %")
    axes.invert_yaxis()


def _draw_memory_bars(axes: Axes, rows: Sequence[Row]) -> None:
    for place, row in enumerate(rows):
        size = (row.peak_bytes or 0) / MIB
        (bar,) = axes.barh([place], [size])
        _dress_bar(bar, row)
        axes.annotate(
            f"{size:,.0f}",
            (size, place),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_yticks([])
    axes.margins(x=0.18)
    _dress(axes, "", "peak memory, MiB")
    axes.invert_yaxis()


def _dress_bar(bar, row: Row) -> None:
    bar.set_facecolor(_colour(row))
    bar.set_hatch(HATCHES[row.how])
    bar.set_edgecolor("white")


def _draw_sweep(cases: Sequence[Case], sweep: str) -> Figure:
    has_memory = _has_memory(cases)
    figure = Figure(figsize=(WIDTH, 4.6), dpi=130, layout="constrained")
    axes = figure.subplots(1, 1 + has_memory, squeeze=False)[0]
    names = dict.fromkeys(row.name for case in cases for row in case.rows if row.seconds)
    for name in names:
        timed = [
            (_abscissa(case, sweep), row)
            for case in cases
            for row in case.rows
            if row.name == name and row.seconds
        ]
        x = [value for value, _ in timed]
        rows = [row for _, row in timed]
        style = dict(
            color=_colour(rows[0]),
            linestyle=LINE_STYLES[rows[0].how],
            linewidth=2.4 if rows[0].library == OURS else 1.4,
        )
        axes[0].plot(
            x, [r.time.median * 1e3 for r in rows], marker="o", markersize=4, label=name, **style
        )
        axes[0].fill_between(
            x,
            [r.time.low * 1e3 for r in rows],
            [r.time.high * 1e3 for r in rows],
            color=style["color"],
            alpha=0.15,
            linewidth=0,
        )
        if has_memory:
            axes[1].plot(x, [(r.peak_bytes or 0) / MIB for r in rows], marker="o", **style)
    floors = [(_abscissa(case, sweep), case.floor * 1e3) for case in cases if case.floor]
    if floors:
        axes[0].plot(*zip(*floors, strict=True), color="#333333", linestyle=":", label="floor")
    _dress(axes[0], "ms a step", QUANTITIES[sweep])
    axes[0].legend(frameon=False, fontsize=8)
    if has_memory:
        _dress(axes[1], "peak memory, MiB", QUANTITIES[sweep])
    for panel in axes:
        panel.set_xticks(*_ticks(cases, sweep), fontsize=8)
        panel.set_xlim(left=0)
        panel.set_ylim(bottom=0)
    return figure


def _abscissa(case: Case, sweep: str) -> float:
    """What cost should be proportional to, or nearly: of sides their square."""
    return case.value**2 / 1e6 if sweep == "side" else case.value


def _ticks(cases: Sequence[Case], sweep: str) -> tuple[list[float], list[str]]:
    places = [_abscissa(case, sweep) for case in cases]
    labels = [
        f"{place:.2g}\n{case.value}²" if sweep == "side" else f"{case.value}"
        for place, case in zip(places, cases, strict=True)
    ]
    # Labels of small images would lie on one another.
    gap = max(places) / 14
    kept: list[int] = []
    for i in range(len(places) - 1, -1, -1):
        if not kept or places[kept[-1]] - places[i] >= gap:
            kept.append(i)
    return [places[i] for i in kept], [labels[i] for i in kept]


def _has_memory(cases: Sequence[Case]) -> bool:
    return any(row.peak_bytes is not None for case in cases for row in case.rows)


def _dress(axes: Axes, title: str, unit: str) -> None:
    axes.set_title(title, loc="left", fontweight="bold", fontsize=9)
    axes.set_xlabel(unit, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(color="#dddddd", linewidth=0.6, axis="both" if axes.lines else "x")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
