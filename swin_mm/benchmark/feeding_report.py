"""What data loaders feed, as people read it: a table, lines, JSON and bars."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich import box
from rich.table import Table

from swin_mm.benchmark.feeding import Feed
from swin_mm.benchmark.plot import COLOURS, OUR_COLOUR
from swin_mm.benchmark.report import OURS, milliseconds

WIDTH, BAR = 9.5, 0.4  # inches
RATE_NOTE = (
    "Images/s are the median over groups of batches, as many as there are workers. A worker's time "
    "for an image is by the mean."
)


def draw_table(feeds: Sequence[Feed], step: float | None) -> Table:
    """The loaders.

    Args:
        feeds: What they did.
        step: Seconds of a training step, where it is known.
    """
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("pipeline", no_wrap=True)
    columns = ["workers", "images/s", "20 to 80 %", "ms a batch", "ms an image, worker", "padding"]
    for column in columns + ["to step"] * (step is not None):
        table.add_column(column, justify="right")
    for feed in feeds:
        rates = feed.rates
        cells = [
            feed.library,
            f"{feed.workers}",
            f"{rates.median:.1f}",
            f"{rates.low:.1f} to {rates.high:.1f}",
            milliseconds(feed.mean_seconds),
            milliseconds(feed.worker_seconds),
            f"{feed.padding:.0%}",
        ]
        cells += [] if step is None else [f"{feed.ratio(step):.2f}x"]
        table.add_row(*cells, style="bold" if feed.library == OURS else None)
    return table


def draw_steps(steps: Mapping[str, Mapping[str, float]]) -> Table:
    """CPU milliseconds of an image in each step of the pipelines, by library."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("step of the pipeline", no_wrap=True)
    for library in steps:
        table.add_column(f"{library}, ms", justify="right")
    # A pipeline's steps are alike but for a few.
    names = dict.fromkeys(name for seconds in steps.values() for name in seconds)
    for name in names:
        found = [seconds.get(name) for seconds in steps.values()]
        table.add_row(name, *("" if x is None else milliseconds(x) for x in found))
    table.add_section()
    table.add_row("all", *(milliseconds(sum(seconds.values())) for seconds in steps.values()))
    return table


def to_dict(feed: Feed, step: float | None) -> dict[str, Any]:
    """A loader as JSON has it."""
    rates = feed.rates._asdict()
    return {
        "library": feed.library,
        "workers": feed.workers,
        "batch": feed.batch,
        **{f"{name}_images_per_second": value for name, value in rates.items()},
        "mean_images_per_second": feed.batch / feed.mean_seconds,
        "worker_ms_per_image": feed.worker_seconds * 1e3,
        "padding_share": feed.padding,
        "data_to_step": None if step is None else feed.ratio(step),
        "workers_needed": None if step is None else feed.workers_needed(step),
        "samples_ms": [seconds * 1e3 for seconds in feed.seconds],
    }


def write_json(
    path: Path,
    feeds: Sequence[Feed],
    steps: Mapping[str, Mapping[str, float]],
    step: float | None,
    advice: Sequence[str],
    about: Mapping[str, Any],
) -> None:
    """Writes everything that was measured.

    Args:
        path: The file.
        feeds: What the loaders did.
        steps: CPU seconds of an image in each step of the pipelines, by library.
        step: Seconds of a training step, where it is known.
        advice: What follows from it.
        about: Command, date, data and machine.
    """
    content = {
        **about,
        "step_ms": None if step is None else step * 1e3,
        "loaders": [to_dict(feed, step) for feed in feeds],
        "pipeline_cpu_ms": {
            library: {name: value * 1e3 for name, value in seconds.items()}
            for library, seconds in steps.items()
        },
        "advice": list(advice),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def draw_bars(feeds: Sequence[Feed], step: float | None, caption: str, path: Path) -> None:
    """Draws images per second, and what a training step needs.

    Args:
        feeds: What the loaders did.
        step: Seconds of a training step, where it is known.
        caption: What was measured and on what, above the picture.
        path: PNG file to write.
    """
    figure = Figure(figsize=(WIDTH, BAR * len(feeds) + 1.5), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    rates = [feed.rates for feed in feeds]
    spread = [[r.median - r.low for r in rates], [r.high - r.median for r in rates]]
    colours = [OUR_COLOUR if x.library == OURS else COLOURS[x.library] for x in feeds]
    medians = [r.median for r in rates]
    axes.barh(range(len(feeds)), medians, xerr=spread, ecolor="#333333", capsize=2, color=colours)
    for place, rate in enumerate(rates):
        axes.text(rate.high, place, f"  {rate.median:.1f}", va="center", fontsize=8)
    needed = 0.0
    if step is not None:
        needed = feeds[0].batch / step
        axes.axvline(needed, color="#333333", linewidth=1, linestyle=":", label="a step takes")
        axes.legend(frameon=False, fontsize=8, loc="lower right")
    axes.set_yticks(range(len(feeds)), [feed.name for feed in feeds], fontsize=8)
    axes.set_xlim(0, max(needed, *(r.high for r in rates)) * 1.15)
    axes.set_xlabel("images a second, with the quantiles 20 and 80 %", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.invert_yaxis()
    figure.suptitle(caption, fontsize=9, x=0.01, ha="left", color="#444444")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
