"""What a GPU did, from timelines written by hand."""

import gzip
import json

import pytest

from swin_mm.benchmark.profile_trace import measure_activity, read_trace


def event(name, cat, ts, dur):
    return {"ph": "X", "name": name, "cat": cat, "ts": ts, "dur": dur}


def step(ts, dur):
    return event("training step", "user_annotation", ts, dur)


EVENTS = [
    {"ph": "M", "name": "process_name"},
    step(100, 50),
    step(150, 50),
    event("end of the steps", "user_annotation", 200, 100),
    event("training step", "gpu_user_annotation", 0, 1000),
    event("warm up", "kernel", 50, 60),  # 100 to 110 are in the steps
    event("a", "kernel", 120, 40),  # to 160
    event("b", "kernel", 130, 20),  # at the same time, on another stream
    event("copy", "gpu_memcpy", 150, 20),  # to 170
    event("fill", "gpu_memset", 280, 100),  # 280 to 300 are in the steps
    event("no work of the GPU", "cpu_op", 100, 200),
    event("cudaLaunchKernel", "cuda_runtime", 90, 1),  # before
    event("cudaLaunchKernel", "cuda_runtime", 100, 1),
    event("cudaLaunchKernelExC", "cuda_runtime", 151, 1),
    event("cuLaunchKernel", "cuda_driver", 152, 1),
    event("cudaMemcpyAsync", "cuda_runtime", 153, 1),
    event("cudaStreamSynchronize", "cuda_runtime", 154, 1),
    event("cudaEventSynchronize", "cuda_runtime", 199, 1),
    event("cudaDeviceSynchronize", "cuda_runtime", 200, 1),  # the wait at the end
]


def test_busy_time_launches_and_waits(tmp_path):
    path = tmp_path / "timeline.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"traceEvents": EVENTS}).encode()))
    found = measure_activity(read_trace(path))
    assert found.busy == (10 + 50 + 20) / 200
    assert found.launches == 3 / 2
    assert found.waits == 2 / 2


def test_without_a_mark_of_the_end_steps_are_the_window():
    assert measure_activity([step(0, 10), event("a", "kernel", 5, 20)]).busy == 0.5


def test_a_timeline_without_steps_is_refused():
    with pytest.raises(ValueError, match="the timeline has no range 'training step'"):
        measure_activity(EVENTS[4:])
