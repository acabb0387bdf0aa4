"""A cache of tensors that follow from sizes alone."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import wraps
from inspect import signature
from threading import Lock
from typing import Any

import torch

# Of the mode in which new tensors have a shape and no values. There is no public function for it.
FAKE = torch._C._TorchDispatchModeKey.FAKE


def cached(size: int) -> Callable[[Callable], Callable]:
    """Caches the latest results, as `functools.lru_cache`; safe under two modes and compilers.

    Results are made outside of inference mode, whose tensors cannot be used in a training step.
    What a CUDA graph reads while it is captured stays cached for good, since each replay reads it;
    what is made during the capture belongs to the graph and is not cached. Compiled code calls the
    function itself, since a cache would pin symbolic sizes to numbers; so do `torch.jit.trace` and
    modes of fake tensors, whose results are for that use alone.

    The function takes hashable positional arguments and returns tensors, of which the last `size`
    are cached. Where its last argument is a `device` that is not given, that is the default device
    of the moment.
    """

    def decorate(function: Callable) -> Callable:
        latest: OrderedDict[Hashable, Any] = OrderedDict()
        in_graphs: dict[Hashable, Any] = {}
        lock = Lock()
        parameters = list(signature(function).parameters)
        num_parameters, takes_device = len(parameters), parameters[-1] == "device"

        @wraps(function)
        def call(*arguments: Any) -> Any:
            if torch.compiler.is_compiling():
                return function(*arguments)
            if takes_device and (len(arguments) < num_parameters or arguments[-1] is None):
                arguments = (*arguments[: num_parameters - 1], torch.get_default_device())
            has_fake_tensors = torch._C._get_dispatch_mode(FAKE) is not None
            if has_fake_tensors or torch.jit.is_tracing():
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
