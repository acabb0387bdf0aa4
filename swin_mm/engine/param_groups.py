"""Groups of parameters with equal settings, where mmengine makes one of each parameter.

An optimizer that updates a group in one go has then one or a few launches to make, not hundreds.
"""

from functools import partial
from typing import Any

from mmengine.hooks import Hook
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.runner import Runner
from torch import nn
from torch.optim import Optimizer

from swin_mm.registry import HOOKS, OPTIM_WRAPPER_CONSTRUCTORS

# How an update is computed, not which: a resumed training computes as its own config says.
IMPLEMENTATIONS = ("foreach", "fused", "capturable", "differentiable")

# What changes while a schedule goes on, beside what is private.
PROGRESS = ("last_step", "best", "cooldown_counter", "num_bad_epochs")

Group = dict[str, Any]


class ResumeError(ValueError):
    """A state of an optimizer that does not fit the config; the message says why."""


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class MergedOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's constructor, whose groups with equal settings are made one.

    Rates and decays of all parameters are what `paramwise_cfg` says, and schedules change them as
    ever. The first group is still that of the model's first parameter, whose rate mmengine logs.

    A state that was saved with one group for each parameter can be loaded, if the settings are
    those of the config. `swin_mm.ResumedSchedulesHook` does what has to be done for the schedules.

    Args:
        optim_wrapper_cfg: As in mmengine.
        paramwise_cfg: As in mmengine.

    Examples:
        optim_wrapper = dict(constructor='swin_mm.MergedOptimWrapperConstructor')
    """

    def __call__(self, model: nn.Module) -> OptimWrapper:
        self.members: list[list[int]] = []
        wrapper = super().__call__(model)
        prepare = partial(_prepare_state, members=self.members)
        wrapper.optimizer.register_load_state_dict_pre_hook(prepare)
        return wrapper

    def add_params(
        self, params: list[Group], module: nn.Module, prefix: str = "", **kwargs: Any
    ) -> None:
        """Appends the groups of a model; mmengine calls it for every part of it as well."""
        super().add_params(params, module, prefix, **kwargs)
        if prefix:
            return
        self.adjust_groups(params, module)
        merged: list[Group] = []
        settings: list[Group] = []
        members: list[list[int]] = []  # numbers of the parameters, in mmengine's order
        for number, group in enumerate(params):
            own = self._settings_of(group)
            if own not in settings:
                settings.append(own)
                members.append([])
                merged.append({**own, "params": []})
            place = settings.index(own)
            members[place].append(number)
            merged[place]["params"] += group["params"]
        params[:] = merged
        self.members = members

    def adjust_groups(self, groups: list[Group], model: nn.Module) -> None:
        """Changes settings of the groups, one for each parameter, before they are merged."""

    def _settings_of(self, group: Group) -> Group:
        """What a group says, and what the optimizer would give it of rate and decay."""
        defaults = {"lr": self.base_lr, "weight_decay": self.base_wd}
        given = {name: value for name, value in group.items() if name != "params"}
        return {name: value for name, value in defaults.items() if value is not None} | given


def _prepare_state(optimizer: Optimizer, state: dict, members: list[list[int]]) -> dict:
    """Brings a saved state, of its groups or of one for each parameter, into an optimizer's groups.

    `members` are the numbers of each group's parameters; empty where nothing was merged.

    Raises:
        ResumeError: The state has other groups, or settings that differ within one of ours.
    """
    saved = state["param_groups"]
    own = optimizer.param_groups
    count = sum(map(len, members))
    if members and len(saved) == count and all(len(group["params"]) == 1 for group in saved):
        saved = [_merge_saved(saved, numbers) for numbers in members]
    if len(saved) != len(own):
        raise ResumeError(
            f"the optimizer was saved with {len(saved)} groups of parameters, and the config makes "
            f"{len(own)}{f', {count} before they are merged' if members else ''}: resume with the "
            "model and the optim_wrapper.paramwise_cfg it was trained with"
        )
    kept = [{name: group[name] for name in IMPLEMENTATIONS if name in group} for group in own]
    groups = [{**group, **settings} for group, settings in zip(saved, kept, strict=True)]
    return {**state, "param_groups": groups}


def _merge_saved(saved: list[Group], numbers: list[int]) -> Group:
    first = saved[numbers[0]]
    for number in numbers[1:]:
        differing = [
            name for name in first if name != "params" and saved[number][name] != first[name]
        ]
        if differing:
            name = differing[0]
            raise ResumeError(
                f"parameters {numbers[0]} and {number} were saved with {name}={first[name]} and "
                f"{saved[number][name]}, and the config gives them one: resume with the "
                "optim_wrapper.paramwise_cfg it was trained with"
            )
    return {**first, "params": [saved[number]["params"][0] for number in numbers]}


@HOOKS.register_module()
class ResumedSchedulesHook(Hook):
    """Gives a resumed schedule the first values of the groups that there are now.

    A schedule saves one for each group. mmengine takes them for those of the groups it finds, by
    their order, also where a checkpoint had one group for each parameter and the groups have been
    merged since (`swin_mm.MergedOptimWrapperConstructor`). Each group knows its own.

    A schedule goes on as it was saved. Where the config has another one, such as one of more
    epochs, the log says so.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Warns of schedules that are not those of the config."""
        if not runner._resume or "param_schedulers" not in checkpoint:
            return
        saved = _list_schedules(checkpoint["param_schedulers"])
        own = _list_schedules(runner.param_schedulers)
        differing = [
            f"{type(schedule).__name__} has {name}={state[name]} there and {value} in the config"
            for schedule, state in zip(own, saved, strict=False)
            for name, value in vars(schedule).items()
            if name in state and isinstance(value, int | float | dict) and value != state[name]
            if not name.startswith("_") and name not in PROGRESS
        ]
        if len(saved) != len(own):
            differing.append(f"there are {len(saved)} there and {len(own)} in the config")
        if differing:
            runner.logger.warning(
                f"The schedules of the checkpoint go on: {'; '.join(differing)}. A run that "
                "starts from its weights (--weights) follows the config."
            )

    def before_train(self, runner: Runner) -> None:
        for scheduler in _list_schedules(runner.param_schedulers):
            groups = scheduler.optimizer.param_groups
            # Those that go by metrics have no first values.
            if len(getattr(scheduler, "base_values", groups)) != len(groups):
                first = f"initial_{scheduler.param_name}"
                scheduler.base_values = [group[first] for group in groups]


def _list_schedules(schedules: Any) -> list[Any]:
    """Schedules or their states, which several optimizers have by name."""
    if isinstance(schedules, dict):
        return [one for several in schedules.values() for one in several]
    return list(schedules or ())
