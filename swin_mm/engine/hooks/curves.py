"""A picture of loss and metrics, always up to date."""

from pathlib import Path

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner

from swin_mm.engine.curves import plot_curves, read_history
from swin_mm.registry import HOOKS

CURVES_FILE = "curves.png"


@HOOKS.register_module()
class CurvesHook(Hook):
    """Draws `curves.png` in the work folder after each validation and at the end of training."""

    priority = "VERY_LOW"  # mmengine has logged the metrics by then

    @master_only
    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        # Nothing is logged yet where the interval of the log is longer than the training.
        if read_history(runner.work_dir).train:
            plot_curves(runner.work_dir, Path(runner.work_dir, CURVES_FILE))

    def after_train(self, runner: Runner) -> None:
        self.after_val_epoch(runner)
