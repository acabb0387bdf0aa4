"""What differs between the ranks of a run and has to survive it: gradients, buffers."""

import torch
from mmengine.dist import all_gather_object, broadcast, get_rank, get_world_size
from mmengine.hooks import EMAHook
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner

from swin_mm.engine.runner_parts import bare_model, optim_wrappers


def share_buffers(runner: Runner) -> None:
    """Gives all ranks the buffers of the first, whose are saved; all ranks must call it.

    Without it each rank validates with batch norm statistics of its own, but those of the first
    after a resume.
    """
    if get_world_size() == 1:
        return
    averages = [hook.ema_model for hook in runner.hooks if isinstance(hook, EMAHook)]
    for model in (runner.model, *averages):
        for buffer in model.buffers():
            if buffer.is_floating_point():
                broadcast(buffer)


def gather_gradients(runner: Runner) -> list[dict[str, torch.Tensor]] | None:
    """Gathers what each process has accumulated; all processes must call it.

    Returns:
        Gradients by the name of their parameter, for each process; None between two steps of all
        optimizers.
    """
    if all(wrapper.should_update() for wrapper in optim_wrappers(runner)):
        return None
    named = bare_model(runner).named_parameters()
    own = {name: p.grad.cpu() for name, p in named if p.grad is not None}
    return all_gather_object(own)


def set_gradients(runner: Runner, gradients: list[dict[str, torch.Tensor]]) -> None:
    """Gives each process the gradients it had; with another number of processes they are lost."""
    if len(gradients) != get_world_size():
        runner.logger.warning(
            f"The checkpoint has accumulated gradients of {len(gradients)} processes, this run has "
            f"{get_world_size()}: they are dropped."
        )
        return
    parameters = dict(bare_model(runner).named_parameters())
    for name, gradient in gradients[get_rank()].items():
        parameters[name].grad = gradient.to(parameters[name].device)


def count_batches(runner: Runner) -> dict[str, int]:
    """Counts the batches that each of several optimizers has had; one alone follows the steps."""
    wrapper = runner.optim_wrapper
    several = isinstance(wrapper, OptimWrapperDict)
    return {name: one.inner_count for name, one in wrapper.items()} if several else {}


def set_batch_counts(runner: Runner, counts: dict[str, int]) -> None:
    """Gives each of several optimizers the number of batches it had."""
    for name, count in counts.items():
        runner.optim_wrapper[name]._inner_count = count
