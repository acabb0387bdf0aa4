"""Keeps tensors that follow from sizes alone for the next call."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import wraps
from threading import Lock
from typing import Any

import torch

from swin_mm.ops.transforms import has_fake_tensors


def keep(size: int) -> Callable[[Callable], Callable]:
    """Keeps the latest results of a function, as `functools.lru_cache` does, and heeds modes.

    Results are made outside of inference mode, whose tensors could not serve a training step. And
    while a CUDA graph is captured, what it reads is kept for good, since each replay reads it;
    what is made then belongs to the graph, and is not kept. Among fake tensors and
    while `torch.jit.trace` records, results are made anew each time, for that use alone.

    Args:
        size: Results that are kept.

    Returns:
        Decorates a function of hashable arguments that gives tensors.
    """

    def decorate(function: Callable) -> Callable:
        latest: OrderedDict[Hashable, Any] = OrderedDict()
        in_graphs: dict[Hashable, Any] = {}
        lock = Lock()

        @wraps(function)
        def call(*arguments):
            # No device means the default one of the moment, as within `with torch.device("meta")`.
            arguments = tuple(torch.get_default_device() if a is None else a for a in arguments)
            if torch.jit.is_tracing() or has_fake_tensors():
                return function(*arguments)
            # Without a driver, the question is an error.
            is_captured = torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()
            with lock:
                if arguments in latest:
                    latest.move_to_end(arguments)
                    if is_captured:
                        in_graphs[arguments] = latest[arguments]
                    return latest[arguments]
            if is_captured:
                return in_graphs[arguments] if arguments in in_graphs else function(*arguments)
            with torch.inference_mode(False):
                result = function(*arguments)
            with lock:
                latest[arguments] = result
                while len(latest) > size:
                    latest.popitem(last=False)
            return result

        return call

    return decorate
