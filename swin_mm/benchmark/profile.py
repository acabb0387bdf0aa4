"""Where the time of a step goes: by part of the model and by operator.

Steps are taken twice: as training or inference takes them, for their time, and under
`torch.profiler`, for the parts, the operators and the trace. On a GPU the second pass waits for the
device at the borders of parts, so that each part has the time of its own kernels.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial, wraps
from pathlib import Path
from typing import Any

import torch
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from torch import nn
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, record_function
from torch.utils import benchmark

Batch = dict[str, Any]
Run = Callable[[Batch], object]  # takes a step on a batch

WARM_UP_STEPS = 3
PROFILED_STEPS = 3  # a trace of more is slow to open
PART = "part: "  # names of parts begin with it, so that they are no operator's
# Parts that every step has, beside those of the model, in their order.
FIRST, LAST = ("data", "transfer", "preprocess"), ("other", "backward", "optimizer")
CALLS = ("forward", "loss", "loss_and_predict", "predict")  # of mmdet's and mmseg's modules
# Calls of detectors' heads that are parts of their own.
INNER = {"predict_by_feat": "candidates", "predict_bbox": "boxes", "predict_mask": "masks"}
NUM_OPERATORS = 20  # lines of the table


def take_steps(run: Run, batches: Iterator[Batch], count: int) -> int:
    """Takes steps, and returns the number of images of all."""
    images = 0
    for _ in range(count):
        with record_function(f"{PART}data"):
            batch = next(batches)
        images += len(batch["inputs"])
        with record_function(f"{PART}other"):
            run(batch)
    return images


def profile_steps(
    model: BaseModel,
    optim_wrapper: OptimWrapper | None,
    batches: Iterator[Batch],
    count: int,
    trace: Path,
    autocast: Callable[[], AbstractContextManager] = nullcontext,
    clock: Callable[[], float] = benchmark.timer,
) -> tuple[dict[str, Any], str]:
    """Measures training steps, or without `optim_wrapper` those of inference under `autocast`.

    `count` steps are timed, after three that are not. The trace, `.json.gz`, is for
    https://ui.perfetto.dev or `chrome://tracing`.

    Returns:
        `step_ms` and `images_per_second` without the profiler, `parts_ms` and on a GPU what it did,
        for one step each; and the table of operators.
    """

    def run(batch: Batch) -> None:
        if optim_wrapper is not None:
            model.train_step(batch, optim_wrapper)
            return
        with torch.no_grad(), autocast():
            model.test_step(batch)

    take_steps(run, batches, WARM_UP_STEPS)
    start = clock()
    images = take_steps(run, batches, count)
    seconds = clock() - start
    device = next(model.parameters()).device
    is_cuda = device.type == "cuda"
    wait = partial(torch.cuda.synchronize, device) if is_cuda else lambda: None
    activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * is_cuda]
    with (
        mark_parts(model, optim_wrapper, wait),
        torch.profiler.profile(activities=activities) as profiler,
    ):
        take_steps(run, batches, PROFILED_STEPS)
        wait()
    trace.parent.mkdir(parents=True, exist_ok=True)
    profiler.export_chrome_trace(str(trace))
    parts = exclusive_times(profiler.events())
    ordered = [*FIRST, *(name for name in parts if name not in FIRST + LAST), *LAST]
    averages = profiler.key_averages()
    result: dict[str, Any] = {
        "step_ms": seconds / count * 1e3,
        "images_per_second": images / seconds,
        "steps": count,
        "parts_ms": {name: parts[name] / PROFILED_STEPS for name in ordered if name in parts},
    }
    if is_cuda:
        result |= describe_gpu(averages, result["step_ms"])
    order = "self_device_time_total" if is_cuda else "self_cpu_time_total"
    table = averages.table(sort_by=order, row_limit=NUM_OPERATORS, max_name_column_width=48)
    return result, table


def describe_gpu(averages: Iterable[Any], step_ms: float) -> dict[str, float]:
    """Share of a step's time in which the GPU computes, and launches and waits of a step."""
    launches = waits = busy = 0.0
    for event in averages:
        busy += event.self_device_time_total / 1e3 * (not event.key.startswith(PART))
        launches += event.count * ("LaunchKernel" in event.key)
        # The profile's own waits are cudaDeviceSynchronize.
        waits += event.count * (event.key in ("cudaStreamSynchronize", "cudaEventSynchronize"))
    return {
        "gpu_busy": busy / PROFILED_STEPS / step_ms,
        "kernel_launches": launches / PROFILED_STEPS,
        "gpu_waits": waits / PROFILED_STEPS,
    }


def exclusive_times(events: Iterable[FunctionEvent]) -> dict[str, float]:
    """Milliseconds of each part, without those of the parts that it calls."""
    times: dict[str, float] = {}
    for event in events:
        if not event.name.startswith(PART) or event.device_type != torch.autograd.DeviceType.CPU:
            continue
        taken = event.time_range.elapsed_us() / 1e3
        times[event.name] = times.get(event.name, 0.0) + taken
        caller = event.cpu_parent
        while caller is not None and not caller.name.startswith(PART):
            caller = caller.cpu_parent
        if caller is not None:
            times[caller.name] = times.get(caller.name, 0.0) - taken
    return {name.removeprefix(PART): value for name, value in times.items()}


@contextmanager
def mark_parts(
    model: nn.Module, optim_wrapper: OptimWrapper | None, wait: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Marks the parts of steps as ranges of the profiler.

    Each child of a detector or segmentor is a part, and the members of a list are one part. `wait`
    waits for the device, before and after each part.
    """
    with ExitStack() as stack:

        def mark(owner: Any, call: str, part: str) -> None:
            if not hasattr(owner, call):
                return
            original = getattr(owner, call)

            @wraps(original)
            def marked(*args: Any, **kwargs: Any) -> Any:
                wait()
                with record_function(f"{PART}{part}"):
                    result = original(*args, **kwargs)
                    wait()
                    return result

            setattr(owner, call, marked)
            stack.callback(delattr, owner, call)

        for name, child in model.named_children():
            if name == "data_preprocessor":
                mark(child, "forward", "preprocess")
                mark(child, "cast_data", "transfer")
                continue
            for member in child if isinstance(child, nn.ModuleList) else [child]:
                for call in CALLS:
                    mark(member, call, name)
                for call, part in INNER.items():
                    mark(member, call, f"{name} {part}")
        mark(optim_wrapper, "backward", "backward")
        mark(optim_wrapper, "step", "optimizer")
        mark(optim_wrapper, "zero_grad", "optimizer")
        yield
