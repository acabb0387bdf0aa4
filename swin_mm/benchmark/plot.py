"""Plots of a result: bars for cases, lines for a sweep, bars for the parts of a step."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from swin_mm.benchmark.report import OURS, milliseconds, timed_rows

# A colour for each library, whatever else is in the plot.
COLOURS = {
    OURS: "#1f5f99",
    "mmdet": "#d1652c",
    "mmseg": "#b3962e",
    "timm": "#3b8a55",
    "torchvision": "#8b4d9e",
    "transformers": "#5c6670",
}
LINE_STYLES = {"eager": "-", "compile": "--", "graphs": ":", "compile+graphs": "-."}
HATCHES = {"eager": "", "compile": "//", "graphs": "..", "compile+graphs": "xx"}
WIDTH = 9.5  # inches
BAR = 0.34  # inches of height for each bar
QUANTITIES = {
    "side": "image, megapixels (square)",
    "batch": "images in a batch",
    "window": "window, tokens on a side",
    "depth": "blocks in stage 3",
}

Row = Mapping[str, Any]


def plot_result(content: Mapping[str, Any], path: Path) -> bool:
    """Plots a result, see `report.py`, as a PNG; returns whether there was anything to plot."""
    cases = [case for case in content["cases"] if timed_rows(case)]
    if not cases:
        return False
    caption = ", ".join(str(content[key]) for key in ("device", "commit") if content.get(key))
    if sweep := content["sweep"]:
        _save(_plot_sweep(cases, sweep), f"{cases[0]['title']} and on\n{caption}", path)
    else:
        _save(_plot_bars(cases), caption, path)
    return True


def plot_parts(parts: Mapping[str, float], caption: str, path: Path) -> None:
    """Plots the milliseconds of each part of a step."""
    figure = Figure(figsize=(WIDTH, BAR * (len(parts) + 3)), dpi=130, layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(list(parts), list(parts.values()), color=COLOURS[OURS])
    axes.bar_label(bars, [milliseconds(value) for value in parts.values()], padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    _style(axes, "", "ms a step")
    _save(figure, caption, path)


def _save(figure: Figure, caption: str, path: Path) -> None:
    figure.suptitle(caption, fontsize=9, x=0.01, ha="left", color="#444444")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _plot_bars(cases: Sequence[Mapping[str, Any]]) -> Figure:
    has_memory = _has_memory(cases)
    heights = [len(timed_rows(case)) + 1.6 for case in cases]
    size = (WIDTH, BAR * sum(heights) + 0.5 * len(cases) + 0.6)
    figure = Figure(figsize=size, dpi=130, layout="constrained")
    grid = figure.subplots(
        len(cases), 1 + has_memory, squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for axes, case in zip(grid, cases, strict=True):
        rows = timed_rows(case)
        medians = [row["median_ms"] for row in rows]
        spread = [
            [row["median_ms"] - row["low_ms"] for row in rows],
            [row["high_ms"] - row["median_ms"] for row in rows],
        ]
        _draw_bars(axes[0], rows, medians, [milliseconds(value) for value in medians], xerr=spread)
        axes[0].set_yticks(range(len(rows)), [_name(row) for row in rows], fontsize=8)
        _style(axes[0], f"{case['title']}\n", "ms a step, with the quantiles 20 and 80 %")
        if has_memory:
            sizes = [row["peak_mib"] or 0 for row in rows]
            _draw_bars(axes[1], rows, sizes, [f"{value:,.0f}" for value in sizes])
            axes[1].set_yticks([])
            _style(axes[1], "", "peak memory, MiB")
    return figure


def _draw_bars(
    axes: Axes,
    rows: Sequence[Row],
    values: Sequence[float],
    labels: Sequence[str],
    xerr: Any = None,
) -> None:
    bars = axes.barh(range(len(rows)), values, xerr=xerr, ecolor="#333333", capsize=2)
    for bar, row in zip(bars, rows, strict=True):
        bar.set(facecolor=COLOURS[row["library"]], hatch=HATCHES[row["run"]], edgecolor="white")
    axes.bar_label(bars, labels, padding=4, fontsize=8)
    axes.margins(x=0.15)
    axes.set_xlim(left=0)
    axes.invert_yaxis()


def _plot_sweep(cases: Sequence[Mapping[str, Any]], sweep: str) -> Figure:
    has_memory = _has_memory(cases)
    figure = Figure(figsize=(WIDTH, 4.6), dpi=130, layout="constrained")
    axes = figure.subplots(1, 1 + has_memory, squeeze=False)[0]
    lines: dict[str, list[tuple[float, Row]]] = {}
    for case in cases:
        for row in timed_rows(case):
            lines.setdefault(_name(row), []).append((_abscissa(case, sweep), row))
    for name, points in lines.items():
        x, rows = zip(*points, strict=True)
        colour = COLOURS[rows[0]["library"]]
        style = dict(color=colour, linestyle=LINE_STYLES[rows[0]["run"]], marker="o", markersize=4)
        axes[0].plot(x, [row["median_ms"] for row in rows], label=name, **style)
        low, high = ([row[key] for row in rows] for key in ("low_ms", "high_ms"))
        axes[0].fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        if has_memory:
            axes[1].plot(x, [row["peak_mib"] or 0 for row in rows], **style)
    axes[0].legend(frameon=False, fontsize=8)
    for panel, title in zip(axes, ("ms a step", "peak memory, MiB"), strict=False):
        _style(panel, title, QUANTITIES[sweep])
        panel.set_xlim(left=0)
        panel.set_ylim(bottom=0)
        if sweep != "side":
            panel.set_xticks([case["value"] for case in cases])
    return figure


def _abscissa(case: Mapping[str, Any], sweep: str) -> float:
    """What cost should be proportional to: of sides their square."""
    return case["value"] ** 2 / 1e6 if sweep == "side" else case["value"]


def _has_memory(cases: Sequence[Mapping[str, Any]]) -> bool:
    return any(row["peak_mib"] for case in cases for row in timed_rows(case))


def _name(row: Row) -> str:
    return f"{row['library']} {row['run']}"


def _style(axes: Axes, title: str, unit: str) -> None:
    axes.set_title(title, loc="left", fontweight="bold", fontsize=9)
    axes.set_xlabel(unit, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(color="#dddddd", linewidth=0.6, axis="both" if axes.lines else "x")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
