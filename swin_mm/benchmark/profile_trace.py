"""What a GPU did in a timeline that `torch.profiler` has written.

The file is in the format of Chrome's trace viewer: events with a category, a name, and a start and
a length in microseconds.
"""

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

STEP, END = "training step", "end of the steps"  # ranges that `profile.py` marks
GPU_WORK = {"kernel", "gpu_memcpy", "gpu_memset"}
RUNTIME = {"cuda_runtime", "cuda_driver"}
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaLaunchCooperativeKernel")
WAITS = {"cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy"}

Span = tuple[float, float]


class GpuActivity(NamedTuple):
    """What a GPU did.

    Attributes:
        busy: Share of the time in which it computed or copied something.
        launches: Kernels that a step starts, the mean.
        waits: How often a step waits for the GPU to be done, the mean.
    """

    busy: float
    launches: float
    waits: float


def read_trace(path: Path) -> list[dict]:
    """Reads the events of a timeline that has been compressed by gzip."""
    with gzip.open(path, "rt") as file:
        return json.load(file)["traceEvents"]


def measure_activity(events: Iterable[dict]) -> GpuActivity:
    """Adds up what the GPU did in the steps of a timeline.

    Args:
        events: Those of the file. The range `STEP` marks each step, and `END` the wait for the GPU
            after the last, which is not counted as a wait of a step.

    Raises:
        ValueError: No step is marked.
    """
    events = [event for event in events if event.get("ph") == "X"]
    marks = [event for event in events if event.get("cat") == "user_annotation"]
    steps = [_span(event) for event in marks if event["name"] == STEP]
    if not steps:
        raise ValueError(f"the timeline has no range {STEP!r}")
    ends = [_span(event)[1] for event in marks if event["name"] == END]
    window = (min(start for start, _ in steps), max([end for _, end in steps] + ends))
    work = [_span(event) for event in events if event.get("cat") in GPU_WORK]
    calls = [
        event["name"]
        for event in events
        if event.get("cat") in RUNTIME and any(start <= event["ts"] < end for start, end in steps)
    ]
    return GpuActivity(
        busy=_covered(work, window) / (window[1] - window[0]),
        launches=sum(name.startswith(LAUNCHES) for name in calls) / len(steps),
        waits=sum(name in WAITS for name in calls) / len(steps),
    )


def _span(event: dict) -> Span:
    return event["ts"], event["ts"] + event["dur"]


def _covered(spans: Iterable[Span], window: Span) -> float:
    """Time of a window that at least one span covers: work of several streams counts once."""
    covered, reached = 0.0, window[0]
    for start, end in sorted(spans):
        start, end = max(start, reached), min(end, window[1])
        covered += max(0.0, end - start)
        reached = max(reached, end)
    return covered
