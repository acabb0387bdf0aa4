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
# How a library is run: of a line its style, of a bar its hatch.
STYLES = {
    "eager": ("-", ""),
    "compile": ("--", "//"),
    "graphs": (":", ".."),
    "compile+graphs": ("-.", "xx"),
}
WIDTH = 9.5  # inches
BAR = 0.34  # inches of height for each bar
TIME, MEMORY = "ms a step, with the quantiles 20 and 80 %", "peak memory, MiB"
QUANTITIES = {
    "side": "image, megapixels (square)",
    "batch": "images in a batch",
    "window": "window, tokens on a side",
    "depth": "blocks in stage 3",
}

Case = Mapping[str, Any]


def plot_result(content: Mapping[str, Any], path: Path) -> bool:
    """Plots a result, see `report.py`, as a PNG; returns whether there was anything to plot."""
    cases = [case for case in content["cases"] if timed_rows(case)]
    if not cases:
        return False
    caption = ", ".join(str(content[key]) for key in ("device", "commit") if content.get(key))
    has_memory = any(row["peak_mib"] for case in cases for row in timed_rows(case))
    units = [TIME, MEMORY][: 1 + has_memory]
    if sweep := content["sweep"]:
        caption = f"{cases[0]['title']} and on\n{caption}"
        figure = _new_figure(4.6)
        for axes, unit in zip(figure.subplots(1, len(units), squeeze=False)[0], units, strict=True):
            _draw_lines(axes, cases, sweep, unit)
        figure.axes[0].legend(frameon=False, fontsize=8)
    else:
        heights = [len(timed_rows(case)) + 1.6 for case in cases]
        figure = _new_figure(BAR * sum(heights) + 0.5 * len(cases) + 0.6)
        grid = figure.subplots(len(cases), len(units), squeeze=False, height_ratios=heights)
        for row, case in zip(grid, cases, strict=True):
            for axes, unit in zip(row, units, strict=True):
                _draw_bars(axes, case, unit)
    _save(figure, caption, path)
    return True


def plot_parts(parts: Mapping[str, float], caption: str, path: Path) -> None:
    """Plots the milliseconds of each part of a step."""
    figure = _new_figure(BAR * (len(parts) + 3))
    axes = figure.subplots()
    bars = axes.barh(list(parts), list(parts.values()), color=COLOURS[OURS])
    axes.bar_label(bars, [milliseconds(value) for value in parts.values()], padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    _style(axes, "", "ms a step")
    _save(figure, caption, path)


def _new_figure(height: float) -> Figure:
    return Figure(figsize=(WIDTH, height), dpi=130, layout="constrained")


def _save(figure: Figure, caption: str, path: Path) -> None:
    figure.suptitle(caption, fontsize=9, x=0.01, ha="left", color="#444444")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _draw_bars(axes: Axes, case: Case, unit: str) -> None:
    rows, spread = timed_rows(case), None
    values = [row["median_ms"] if unit == TIME else row["peak_mib"] or 0 for row in rows]
    if unit == TIME:
        below = [row["median_ms"] - row["low_ms"] for row in rows]
        spread = [below, [row["high_ms"] - row["median_ms"] for row in rows]]
    bars = axes.barh(range(len(rows)), values, xerr=spread, ecolor="#333333", capsize=2)
    for bar, row in zip(bars, rows, strict=True):
        hatch = STYLES[row["run"]][1]
        bar.set(facecolor=COLOURS[row["library"]], hatch=hatch, edgecolor="white")
    labels = [milliseconds(v) if unit == TIME else f"{v:,.0f}" for v in values]
    axes.bar_label(bars, labels, padding=4, fontsize=8)
    names = [f"{row['library']} {row['run']}" for row in rows]
    axes.set_yticks(range(len(rows)), names if unit == TIME else [""] * len(rows), fontsize=8)
    axes.margins(x=0.15)
    axes.set_xlim(left=0)
    axes.invert_yaxis()
    _style(axes, f"{case['title']}\n" if unit == TIME else "", unit)


def _draw_lines(axes: Axes, cases: Sequence[Case], sweep: str, unit: str) -> None:
    lines: dict[tuple[str, str], list[tuple[float, dict[str, Any]]]] = {}
    for case in cases:
        # Cost should be proportional to the square of a side.
        x = case["value"] ** 2 / 1e6 if sweep == "side" else case["value"]
        for row in timed_rows(case):
            lines.setdefault((row["library"], row["run"]), []).append((x, row))
    for (library, run), points in lines.items():
        places, rows = zip(*points, strict=True)
        values = [row["median_ms"] if unit == TIME else row["peak_mib"] or 0 for row in rows]
        look: dict[str, Any] = dict(
            color=COLOURS[library], linestyle=STYLES[run][0], marker="o", markersize=4
        )
        axes.plot(places, values, label=f"{library} {run}", **look)
        if unit == TIME:
            low, high = ([row[key] for row in rows] for key in ("low_ms", "high_ms"))
            axes.fill_between(places, low, high, color=COLOURS[library], alpha=0.15, linewidth=0)
    _style(axes, unit, QUANTITIES[sweep])
    axes.set(xlim=(0, None), ylim=(0, None))
    if sweep != "side":
        axes.set_xticks([case["value"] for case in cases])


def _style(axes: Axes, title: str, unit: str) -> None:
    axes.set_title(title, loc="left", fontweight="bold", fontsize=9)
    axes.set_xlabel(unit, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(color="#dddddd", linewidth=0.6, axis="both" if axes.lines else "x")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
