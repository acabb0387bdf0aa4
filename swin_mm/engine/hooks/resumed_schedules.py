"""Schedules that were saved with other groups of parameters."""

from mmengine.hooks import Hook
from mmengine.runner import Runner

from swin_mm.registry import HOOKS


@HOOKS.register_module()
class ResumedSchedulesHook(Hook):
    """Gives a resumed schedule the first values of the groups that there are now.

    A schedule saves one for each group. mmengine takes them for those of the groups it finds, by
    their order, also where a checkpoint had one group for each parameter and the groups have been
    merged since (`swin_mm.MergedOptimWrapperConstructor`). Each group knows its own.
    """

    def before_train(self, runner: Runner) -> None:
        schedulers = runner.param_schedulers or []
        if isinstance(schedulers, dict):  # of several optimizers
            schedulers = [one for several in schedulers.values() for one in several]
        for scheduler in schedulers:
            groups = scheduler.optimizer.param_groups
            # Those that go by metrics have no first values.
            if len(getattr(scheduler, "base_values", groups)) != len(groups):
                first = f"initial_{scheduler.param_name}"
                scheduler.base_values = [group[first] for group in groups]
