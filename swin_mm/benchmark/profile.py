"""Where the time of a training step goes, part by part.

The steps are taken in up to three passes: as training takes them, for the time of the whole; on a
GPU once more with a wait at the borders of parts, for theirs; and a few under `torch.profiler`, for
the timeline and for what the GPU did. On a CPU the first pass has the parts as well.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from torch import nn
from torch.profiler import ProfilerActivity, record_function

from swin_mm.benchmark.measure import synchronizer
from swin_mm.benchmark.profile_parts import DATA, OTHER, PartClock, order_parts, watch
from swin_mm.benchmark.profile_trace import END, STEP, GpuActivity, measure_activity, read_trace
from swin_mm.benchmark.training import Batch, build_training

WARM_UP_STEPS = 3
TRACED_STEPS = 3  # a timeline of more is slow to open


@dataclass
class StepProfile:
    """Where the time of a training step goes.

    Attributes:
        seconds: Of a step, the mean over all, as training takes it.
        parts: Seconds of each part, the mean, in their order. On a GPU each waits for what it has
            queued, so that the sum may be larger than `seconds`.
        waiting: Seconds that a step as training takes it waits for data.
        images: Images of a step, the mean.
        steps: Steps that were measured.
        gpu: What the GPU did; `None` on a CPU, where nothing of it is measured.
    """

    seconds: float
    parts: dict[str, float]
    waiting: float
    images: float
    steps: int
    gpu: GpuActivity | None

    def measures(self) -> dict[str, float | None]:
        """What rules of advice look at: shares of the step, and what the GPU did."""
        total = sum(self.parts.values())
        shares = {name: seconds / total for name, seconds in self.parts.items()}
        # A GPU may still be at work while Python waits for data, so this is of the pass without
        # waits at the borders.
        shares[DATA] = self.waiting / self.seconds
        gpu = self.gpu
        return {
            **shares,
            "gpu idle": None if gpu is None else 1 - gpu.busy,
            "waits": None if gpu is None else gpu.waits,
            "launches": None if gpu is None else gpu.launches,
        }


class Steps:
    """Training steps, one after another.

    Args:
        model: What is trained.
        optim_wrapper: The wrapper of its optimizer.
        batches: What it is trained on.
    """

    def __init__(
        self, model: nn.Module, optim_wrapper: OptimWrapper, batches: Iterator[Batch]
    ) -> None:
        self.model = model
        self.optim_wrapper = optim_wrapper
        self.batches = batches
        self.images = 0

    def run(self, count: int, clock: PartClock) -> float:
        """Takes steps, and gives the seconds of one, the mean."""
        self.images = 0
        with watch(self.model, self.optim_wrapper, clock):
            clock.synchronize()
            start = clock.clock()
            for _ in range(count):
                with record_function(STEP):
                    with clock.part(DATA):
                        batch = next(self.batches)
                    self.images += len(batch["inputs"])
                    with clock.part(OTHER):
                        self.model.train_step(batch, self.optim_wrapper)
            with record_function(END):
                clock.end()
            return (clock.clock() - start) / count


def profile_training(
    cfg: Config,
    batches: Iterator[Batch],
    device: torch.device,
    steps: int,
    timeline: Path,
    clock: Callable[[], float] = time.perf_counter,
) -> StepProfile:
    """Measures the training steps of a config.

    Args:
        cfg: Whole config of a detector or a segmentor.
        batches: What it is trained on.
        device: Where.
        steps: How many are measured, after three that are not.
        timeline: File to write, `.json.gz`, for https://ui.perfetto.dev or `chrome://tracing`.
        clock: Gives seconds.

    Returns:
        The profile.
    """
    runner = Steps(*build_training(cfg, device), batches)
    wait = synchronizer(device)
    make_clock = partial(PartClock, end=wait, clock=clock)
    runner.run(WARM_UP_STEPS, make_clock())
    plain = make_clock()
    seconds = runner.run(steps, plain)
    images = runner.images / steps
    borders = plain
    if device.type == "cuda":
        borders = make_clock(synchronize=wait)
        runner.run(steps, borders)
    _trace(runner, make_clock(), device, timeline)
    return StepProfile(
        seconds=seconds,
        parts={name: value / steps for name, value in order_parts(borders.seconds).items()},
        waiting=plain.seconds[DATA] / steps,
        images=images,
        steps=steps,
        gpu=measure_activity(read_trace(timeline)) if device.type == "cuda" else None,
    )


def _trace(runner: Steps, clock: PartClock, device: torch.device, timeline: Path) -> None:
    activities = [ProfilerActivity.CPU]
    activities += [ProfilerActivity.CUDA] if device.type == "cuda" else []
    with torch.profiler.profile(activities=activities) as profiler:
        runner.run(TRACED_STEPS, clock)
    timeline.parent.mkdir(parents=True, exist_ok=True)
    profiler.export_chrome_trace(str(timeline))
