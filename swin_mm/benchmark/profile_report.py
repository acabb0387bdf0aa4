"""The profile of a step as people read it: a table, JSON, and a bar of its parts."""

import json
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich import box
from rich.table import Table

from swin_mm.benchmark.profile import StepProfile
from swin_mm.benchmark.report import milliseconds

NOT_ON_CPU = "not measured on a CPU"
# With white numbers on them.
COLOURS = (
    *("#1f5f99", "#d1652c", "#3b8a55", "#8b4d9e", "#b3962e", "#5c6670"),
    *("#5a8fc0", "#a8472b", "#1f6b63", "#b0577f", "#7a6a1c", "#33404d"),
)
WIDTH, HEIGHT = 9.5, 2.3  # inches
MIN_LABELLED = 0.06  # share of the step that a number fits into


def draw_table(profile: StepProfile) -> Table:
    """The parts."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("part", no_wrap=True)
    table.add_column("ms a step", justify="right")
    table.add_column("share", justify="right")
    total = sum(profile.parts.values())
    for name, seconds in profile.parts.items():
        table.add_row(name, milliseconds(seconds), f"{seconds / total:.0%}")
    table.add_section()
    table.add_row("sum of the parts", milliseconds(total), "100%")
    return table


def draw_facts(profile: StepProfile) -> list[str]:
    """The step as a whole, a line for each fact."""
    gpu = profile.gpu
    facts = {
        "busy": gpu and f"{gpu.busy:.0%} of the time",
        "kernel launches": gpu and f"{gpu.launches:.0f} a step",
        "waits for it": gpu and f"{gpu.waits:.0f} a step",
    }
    rate = profile.images / profile.seconds
    return [
        f"step: {milliseconds(profile.seconds)} ms, {rate:.1f} images/s, mean of {profile.steps} "
        f"steps; it waits for data {milliseconds(profile.waiting)} ms",
        *(f"GPU, {name}: {text or NOT_ON_CPU}" for name, text in facts.items()),
    ]


def write_json(
    path: Path,
    profile: StepProfile,
    advice: Sequence[str],
    machine: Mapping[str, Any],
    command: str,
    date: str,
) -> None:
    """Writes everything that was measured.

    Args:
        path: The file.
        profile: The result.
        advice: What follows from it.
        machine: Device, versions and commit.
        command: Command line that repeats it.
        date: When it began, as ISO 8601 has it.
    """
    content = {
        "command": command,
        "date": date,
        **machine,
        "step_ms": profile.seconds * 1e3,
        "waiting_for_data_ms": profile.waiting * 1e3,
        "images_per_second": profile.images / profile.seconds,
        "steps": profile.steps,
        "parts_ms": {name: seconds * 1e3 for name, seconds in profile.parts.items()},
        "gpu": NOT_ON_CPU if profile.gpu is None else profile.gpu._asdict(),
        "advice": list(advice),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def draw_bar(profile: StepProfile, caption: str, path: Path) -> None:
    """Draws the parts one after another, as they come in a step.

    Args:
        profile: The result.
        caption: What was measured and on what, above the picture.
        path: PNG file to write.
    """
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    total = sum(profile.parts.values())
    left = 0.0
    for (name, seconds), colour in zip(profile.parts.items(), cycle(COLOURS), strict=False):
        axes.barh([0], [seconds * 1e3], left=left * 1e3, color=colour, label=name)
        if seconds >= MIN_LABELLED * total:
            middle = (left + seconds / 2) * 1e3
            text = milliseconds(seconds)
            axes.text(middle, 0, text, ha="center", va="center", fontsize=8, color="white")
        left += seconds
    axes.set_yticks([])
    axes.set_xlim(0, total * 1e3)
    axes.set_xlabel("ms a step", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=6, frameon=False, fontsize=8)
    figure.suptitle(caption, fontsize=9, x=0.01, ha="left", color="#444444")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
