"""A picture of loss and metrics over a whole training, drawn from what mmengine logged."""

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner

from swin_mm.registry import HOOKS

Record = dict[str, Any]

CURVES_FILE = "curves.png"
LOGS = "*/vis_data/scalars.json"  # one folder for each run, named by the time it started
# What is shown of the metrics: of COCO's twelve the two that are quoted.
MAIN_METRIC = re.compile(r"(mAP|mAP_50|mIoU|mAcc|aAcc)$")
NOT_METRICS = {"step", "iter", "time", "data_time"}
VAL_LOSS = "val/loss"  # and its parts, by ValLossHook
COLOURS = ("#1f5f99", "#d1652c", "#3b8a55", "#8b4d9e", "#b3962e", "#5c6670")


@dataclass
class History:
    """What a training logged, over all runs it took.

    Attributes:
        train: A record of each logged step, with at least `iter` and `loss`.
        val: A record of each validation: metrics, `step`, and the last logged `iter`.
        by_epoch: Whether `step` of a validation counts epochs, not training steps.
    """

    train: list[Record]
    val: list[Record]
    by_epoch: bool


def read_history(work_dir: str | Path) -> History:
    """Reads the logs of all runs in a work folder, in the order of training.

    Where a run was killed and resumed from an earlier checkpoint, what the first run did after that
    checkpoint is left out.
    """
    records: list[Record] = []
    for path in sorted(Path(work_dir).glob(LOGS)):
        run = []
        for line in path.read_text().splitlines():
            with suppress(json.JSONDecodeError):  # the last line of a run that was killed
                run.append(json.loads(line))
        # A validation does not say at which step it was, but the records are in order.
        step = next((record["iter"] for record in run if "iter" in record), None)
        if step is not None:
            records = [record for record in records if record["iter"] < step]
            for record in run:
                step = record.setdefault("iter", step)
            records += run
    train = [record for record in records if "loss" in record]
    val = [record for record in records if "loss" not in record]
    return History(train, val, by_epoch=any("epoch" in record for record in train))


def plot_curves(work_dir: str | Path, path: str | Path) -> None:
    """Draws loss and metrics of a training as PNG; raises ValueError where nothing is logged."""
    history = read_history(work_dir)
    if not history.train:
        raise ValueError(f"nothing to draw: no run in {work_dir} has logged a training step")
    figure = Figure(figsize=(11, 4.2), dpi=120, layout="constrained")
    loss_axes, metric_axes = figure.subplots(1, 2)
    _draw_losses(loss_axes, history)
    _draw_metrics(metric_axes, history)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _draw_losses(axes: Axes, history: History) -> None:
    axes.set_prop_cycle(color=COLOURS)
    _draw_line(axes, history.train, "iter", "loss", linewidth=2.2, zorder=3)
    for name in dict.fromkeys(key for record in history.train for key in record):
        if "loss" in name and name != "loss":
            _draw_line(axes, history.train, "iter", name, linewidth=1)
    if any(VAL_LOSS in record for record in history.val):
        style = dict(color=COLOURS[0], linestyle="--", marker="o", label=VAL_LOSS)
        _draw_line(axes, history.val, "iter", VAL_LOSS, **style)
    _dress(axes, "Training loss", "step", legend="upper right")


def _draw_metrics(axes: Axes, history: History) -> None:
    axes.set_prop_cycle(color=COLOURS)
    names = dict.fromkeys(key for record in history.val for key in record)
    metrics = [n for n in names if n not in NOT_METRICS and not n.startswith(VAL_LOSS)]
    shown = [name for name in metrics if MAIN_METRIC.search(name)] or metrics
    for name in shown:
        _draw_line(axes, history.val, "step", name, linewidth=2, marker="o")
    if not shown:
        axes.text(0.5, 0.5, "no validation yet", ha="center", transform=axes.transAxes)
    _dress(axes, "Validation", "epoch" if history.by_epoch else "step", legend="lower right")


def _draw_line(axes: Axes, records: list[Record], x: str, y: str, **style: Any) -> None:
    points = [(record[x], record[y]) for record in records if y in record]
    label = style.pop("label", y.rpartition("/")[2])
    if "marker" in style:  # in the legend, as numbers beside close curves would overlap
        label += f" {points[-1][1]:.3g}"
    axes.plot(*zip(*points, strict=True), label=label, markersize=4, **style)


def _dress(axes: Axes, title: str, unit: str, legend: Any) -> None:
    axes.set_title(title, loc="left", fontweight="bold")
    axes.set_xlabel(unit)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.lines:
        axes.legend(loc=legend, frameon=False)


@HOOKS.register_module()
class CurvesHook(Hook):
    """Draws `curves.png` in the work folder after each validation and at the end of training."""

    priority = "VERY_LOW"  # mmengine has logged the metrics by then

    @master_only
    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        # Nothing is logged yet where the interval of the log is longer than the training.
        with suppress(ValueError):
            plot_curves(runner.work_dir, Path(runner.work_dir, CURVES_FILE))

    def after_train(self, runner: Runner) -> None:
        self.after_val_epoch(runner)
