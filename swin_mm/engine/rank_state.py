"""What differs between the ranks of a run and has to survive it, and what must not differ."""

import torch
from mmengine.dist import all_gather_object, broadcast, get_rank, get_world_size
from mmengine.hooks import EMAHook
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner
from torch.nn.parallel import DistributedDataParallel

from swin_mm.checkpoint import CheckpointError
from swin_mm.engine.runner_parts import bare_model, optim_wrappers
from swin_mm.engine.sharding import divide_like, is_sharded

Gradients = dict[str, torch.Tensor]  # by the name of their parameter


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


def check_same_start(runner: Runner) -> None:
    """Checks that all ranks start with the same weights at the same step; all must call it.

    DistributedDataParallel trains on with different ones: it adds up gradients alone.

    Raises:
        CheckpointError: They differ, as after a resume from files of two machines.
    """
    if not isinstance(runner.model, DistributedDataParallel):
        return
    parameters = [p.detach().contiguous() for p in runner.model.parameters()]
    sums = [p.flatten().view(torch.uint8).sum(dtype=torch.int64) for p in parameters]
    starts = all_gather_object((runner.epoch, runner.iter, [int(each) for each in sums]))
    for rank, start in enumerate(starts):
        if start != starts[0]:
            raise CheckpointError(
                f"rank {rank} starts at step {start[1]} and rank 0 at step {starts[0][1]}, or with "
                "other weights: give all machines the same checkpoint file"
            )


def gather_gradients(runner: Runner) -> list[Gradients] | Gradients | None:
    """Gathers what each process has accumulated; all processes must call it.

    Returns:
        Gradients for each process, or their divided means where a model is sharded; None between
        two steps of all optimizers.
    """
    if all(wrapper.should_update() for wrapper in optim_wrappers(runner)):
        return None
    named = bare_model(runner).named_parameters()
    own = {name: p.grad for name, p in named if p.grad is not None}
    if is_sharded(runner):
        return own
    return all_gather_object({name: gradient.cpu() for name, gradient in own.items()})


def set_gradients(runner: Runner, gradients: list[Gradients] | Gradients) -> None:
    """Gives each process the gradients it had, or the mean, which has the same effect.

    It is the mean with another number of processes and where a model is or was sharded.
    """
    if isinstance(gradients, list):
        is_same = len(gradients) == get_world_size() and not is_sharded(runner)
        gradients = gradients[get_rank()] if is_same else _mean(gradients)
    parameters = dict(bare_model(runner).named_parameters())
    for name, gradient in gradients.items():
        parameter = parameters[name]
        parameter.grad = divide_like(gradient.to(parameter.device), parameter)


def _mean(gradients: list[Gradients]) -> Gradients:
    names = dict.fromkeys(name for own in gradients for name in own)
    found = {name: [own[name] for own in gradients if name in own] for name in names}
    return {name: torch.stack(some).sum(0) / len(gradients) for name, some in found.items()}


def count_batches(runner: Runner) -> dict[str, int]:
    """Counts the batches that each of several optimizers has had; one alone follows the steps."""
    wrapper = runner.optim_wrapper
    several = isinstance(wrapper, OptimWrapperDict)
    return {name: one.inner_count for name, one in wrapper.items()} if several else {}


def set_batch_counts(runner: Runner, counts: dict[str, int]) -> None:
    """Gives each of several optimizers the number of batches it had."""
    for name, count in counts.items():
        runner.optim_wrapper[name]._inner_count = count
