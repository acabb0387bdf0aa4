"""The largest batch of training that fits into memory, and what to write into a config for it."""

from collections.abc import Callable
from copy import deepcopy

from mmengine.config import Config

from swin_mm.benchmark.batch_trial import Trial

FIRST = 2  # batch norm over pooled maps has nothing to average in one image
# Memory that is left free: images with more objects than those tried, and fragments of many sizes.
HEADROOM = 0.08


def find_largest(try_batch: Callable[[int], Trial], most: int) -> list[Trial]:
    """Doubles the batch until it no longer fits, then halves the gap until none is left.

    Args:
        try_batch: Tries a batch.
        most: No larger one is tried.

    Returns:
        The trials, by batch.
    """
    trials: dict[int, Trial] = {}

    def fits(batch: int) -> bool:
        trials[batch] = try_batch(batch)
        return trials[batch].fits

    good, bad = 0, min(FIRST, most)
    while fits(bad):
        good = bad
        if good == most:
            break
        bad = min(2 * good, most)
    while bad - good > 1:
        middle = (good + bad) // 2
        if fits(middle):
            good = middle
        else:
            bad = middle
    return [trials[batch] for batch in sorted(trials)]


def write_lines(cfg: Config, batch: int, gpus: int, scale: Callable[[Config, int], str]) -> str:
    """Writes what a config needs for a batch.

    Args:
        cfg: Whole config, left as it is.
        batch: Images of a step of one GPU.
        gpus: How many train together.
        scale: Scales the learning rate of a config for so many processes, in place.

    Returns:
        Lines of Python.
    """
    lines = [f"train_dataloader = dict(batch_size={batch})"]
    if not (cfg.get("auto_scale_lr") or {}).get("base_batch_size"):
        return "\n".join(
            [*lines, "# the config does not say for how many images a step its learning rate is"]
        )
    changed = deepcopy(cfg)
    changed.train_dataloader.batch_size = batch
    scale(changed, gpus)
    old, new = cfg.optim_wrapper.optimizer.lr, changed.optim_wrapper.optimizer.lr
    base, images = cfg.auto_scale_lr.base_batch_size, changed.auto_scale_lr.base_batch_size
    return "\n".join(
        [
            *lines,
            f"optim_wrapper = dict(optimizer=dict(lr={new:.6g}))  # {old:g} for {base} images",
            f"auto_scale_lr = dict(base_batch_size={images})",
        ]
    )
