"""Measures once, on each machine, whether the C++ operators are faster there than PyTorch's.

How fast compiled code is depends on the processor and the compiler, and so does PyTorch's: code
that took half of PyTorch's time on one processor has taken five times as much on another. The
result is kept beside the library, so that a machine always chooses alike.
"""

import json
import logging
import os
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from swin_mm.ops import reference
from swin_mm.ops.cpp import linear, window_attention
from swin_mm.ops.cpp.build import library_path

logger = logging.getLogger("swin_mm")

MARGIN = 1.1  # a busy machine's noise is no reason; C++ keeps less for backward
ROUNDS = 5  # of both in turn; the least time of each counts, as what others do only adds


def speed_refusal(name: str) -> str | None:
    """Why PyTorch's operators are preferred to a library's; `None` where it is as fast.

    Args:
        name: Of a C++ source that has been compiled.
    """
    return _speed_refusal(name, torch.get_num_threads())


@lru_cache
def _speed_refusal(name: str, threads: int) -> str | None:
    path = library_path(name).with_suffix(f".{threads}-threads.json")
    times = _read(path) or _measure(name, path)
    if times["cpp_ms"] <= MARGIN * times["pytorch_ms"]:
        return None
    return (
        f"it took {times['cpp_ms']:.1f} ms here, PyTorch {times['pytorch_ms']:.1f} "
        f"({path}; remove it to measure again)"
    )


def _read(path: Path) -> dict[str, float] | None:
    try:
        times = json.loads(path.read_text())
        return {key: float(times[key]) for key in ("cpp_ms", "pytorch_ms")}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _measure(name: str, path: Path) -> dict[str, float]:
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", enabled=False):
        ours, theirs = TRIALS[name]()
        cpp_ms, pytorch_ms = _time_in_turn(ours, theirs)
    times = {"cpp_ms": cpp_ms, "pytorch_ms": pytorch_ms}
    logger.debug("%s: %.1f ms in C++, %.1f in PyTorch", name, cpp_ms, pytorch_ms)
    part = path.with_suffix(f".{os.getpid()}")
    try:
        part.write_text(json.dumps(times))
        os.replace(part, path)
    except OSError as error:  # it is measured again by the next process
        logger.debug("%s cannot be written: %s", path, error)
    return times


def _time_in_turn(*works: Callable[[], None]) -> list[float]:
    """The least time of each, in ms."""
    best = [float("inf")] * len(works)
    for _ in range(ROUNDS + 1):  # the first touches the memory
        for i, work in enumerate(works):
            start = time.perf_counter()
            work()
            best[i] = min(best[i], 1000 * (time.perf_counter() - start))
    return best


def _fill(*shape: int) -> Tensor:
    """Numbers without a generator, whose state is the user's."""
    numbers = torch.arange(torch.Size(shape).numel(), dtype=torch.float32)
    return (numbers * 1.618).sin().view(shape)


def _attend() -> tuple[Callable, Callable]:
    """Stage 2 of Swin-T at 512x512, with its gradient."""
    qkv, bias = _fill(1, 64, 64, 576).requires_grad_(), _fill(6, 49, 49).requires_grad_()
    settings = dict(num_heads=6, window_size=(7, 7), shift_size=(3, 3), scale=32**-0.5)

    def run(attend):
        out = attend(qkv, bias, None, **settings)
        torch.autograd.grad(out, (qkv, bias), out.detach())

    return lambda: run(window_attention.window_attention), lambda: run(reference.window_attention)


def _transform() -> tuple[Callable, Callable]:
    """The MLP of stage 2 of Swin-T at 512x512."""
    x, weight1, weight2 = _fill(4096, 192), _fill(768, 192), _fill(192, 768)
    bias1, bias2 = _fill(768), _fill(192)

    def by_pytorch():
        return F.linear(F.gelu(F.linear(x, weight1, bias1)), weight2, bias2) + x

    return lambda: linear.mlp(x, weight1, bias1, weight2, bias2, x), by_pytorch


TRIALS = {"window_attention": _attend, "linear": _transform}
