"""Ends training when its best checkpoint is long ago."""

from math import inf, nextafter
from typing import Any

from mmengine.hooks import EarlyStoppingHook as MMEngineEarlyStoppingHook
from mmengine.runner import BaseLoop, Runner

from swin_mm.engine.hooks.checkpoint import CheckpointHook, by_importance
from swin_mm.registry import HOOKS

AUTO = "auto"
KEPT = "early_stopping"  # name of the counts in the message hub, which checkpoints hold


@HOOKS.register_module()
class EarlyStoppingHook(MMEngineEarlyStoppingHook):
    """mmengine's hook, except that it goes by what the best checkpoint goes by.

    Its counts are kept in checkpoints, so that a resumed training stops where it would have.

    Args:
        monitor: Name of a metric; `auto` for that of the checkpoint hook's `save_best`, or the
            main metric where it has none.
        rule: `greater` or `less`; by default inferred from the metric's name.
        min_delta: What a metric must gain to count as better. mmengine's default of 0.1 is more
            than most trainings gain of an average precision between 0 and 1.
        **kwargs: As in mmengine, `patience` among them.
    """

    min_delta: float
    _default_greater_keys = CheckpointHook._default_greater_keys

    def __init__(
        self, monitor: str = AUTO, rule: str | None = None, min_delta: float = 0.0, **kwargs: Any
    ) -> None:
        self.is_open = monitor == AUTO
        self.asked_rule = rule
        super().__init__(monitor, "greater" if self.is_open else rule, min_delta, **kwargs)

    def before_run(self, runner: Runner) -> None:
        """Checks the training loop where there is one; for a test mmengine's would build it."""
        if isinstance(runner._train_loop, BaseLoop):
            super().before_run(runner)

    def before_train(self, runner: Runner) -> None:
        """Goes on with the counts of the run that is resumed."""
        kept = runner.message_hub.runtime_info.get(KEPT)
        if kept is None or not (self.is_open or self.monitor == kept["monitor"]):
            return
        if self.is_open:
            self._follow(kept["monitor"], kept["rule"])
        self.best_score, self.wait_count = kept["best_score"], kept["wait_count"]
        if kept["stopped"] and kept["patience"] == self.patience:
            runner.train_loop.stop_training = True

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float]) -> None:
        """Counts validations without a better metric.

        Raises:
            ValueError: The rule cannot be inferred from the metric's name.
        """
        if self.is_open and metrics:
            self._choose(runner, metrics)
        super().after_val_epoch(runner, metrics)
        names = ("monitor", "rule", "wait_count", "patience")
        kept = {name: getattr(self, name) for name in names}
        kept |= dict(best_score=float(self.best_score), stopped=runner.train_loop.stop_training)
        runner.message_hub.update_info(KEPT, kept)

    def _check_stop_condition(self, current_score: float) -> tuple[bool, str]:
        # mmengine takes a tie for a gain, so that a metric that stands still never stops training.
        if current_score == self.best_score + self.min_delta:
            current_score = nextafter(current_score, -inf if self.rule == "greater" else inf)
        return super()._check_stop_condition(current_score)

    def _choose(self, runner: Runner, metrics: dict[str, float]) -> None:
        best = [
            (hook.key_indicators[0], hook.rules[0])
            for hook in runner.hooks
            if isinstance(hook, CheckpointHook) and hook.save_best
        ]
        monitor, rule = best[0] if best else (by_importance(metrics)[0], None)
        self._follow(monitor, self.asked_rule or rule or self._init_rule(monitor))
        runner.logger.info(
            f"Training stops after {self.patience} validations without a better {self.monitor}."
        )

    def _follow(self, monitor: str, rule: str) -> None:
        """Does what mmengine's constructor does, which needs to know the metric."""
        self.monitor, self.rule, self.is_open = monitor, rule, False
        if rule == "less":
            self.min_delta, self.best_score = -self.min_delta, inf
