"""Whether training steps of one batch fit into memory, tried in a process of their own.

In a process of its own a trial finds the memory as a training would, whatever the trial before it
has left behind, and on a CPU it can be ended before the machine runs out.
"""

import multiprocessing
import os
import resource
import sys
import threading
import time
import warnings
from multiprocessing.connection import Connection
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger

from swin_mm.benchmark.measure import synchronizer
from swin_mm.benchmark.training import build_training, random_batches
from swin_mm.benchmark.work import Size

# After the first the optimizer has all its memory, unless float16's loss scale is still searched.
WARM_UP_STEPS, MOST_WARM_UP_STEPS = 2, 20
STEPS = 2
WATCH_SECONDS = 0.01
TOO_LARGE = 77  # exit status of a process that ends itself
KILLED = (TOO_LARGE, -9)  # the second by the system, for want of memory


class TrialError(RuntimeError):
    """A training step failed, and not for want of memory; the message says why."""


class Request(NamedTuple):
    """What is to be tried.

    Attributes:
        cfg: Whole config.
        size: `(H, W)` of the images, in pixels.
        batch: Images of a step.
        device: Where.
        limit: Bytes that there are.
    """

    cfg: Config
    size: Size
    batch: int
    device: str
    limit: int


class Trial(NamedTuple):
    """How it went.

    Attributes:
        batch: Images of a step.
        peak: Most bytes that were taken; `None` where they were more than there are.
        images_per_second: Of the steps; `None` as well.
    """

    batch: int
    peak: int | None = None
    images_per_second: float | None = None

    @property
    def fits(self) -> bool:
        return self.peak is not None


def try_batch(request: Request) -> Trial:
    """Takes a few training steps in another process.

    Raises:
        TrialError: A step fails for another reason than memory.
    """
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(request, sender), daemon=True)
    process.start()
    sender.close()  # so that its end is noticed
    try:
        answer = receiver.recv()
    except EOFError:
        answer = None
    process.join()
    if isinstance(answer, Trial):
        return answer
    if answer is None and process.exitcode in KILLED:
        return Trial(request.batch)
    reason = answer or f"its process ended with status {process.exitcode}"
    raise TrialError(f"a training step with a batch of {request.batch} failed: {reason}")


def _run(request: Request, sender: Connection) -> None:
    """The work of the other process."""
    MMLogger.get_current_instance().setLevel("ERROR")
    warnings.simplefilter("ignore")  # the same of every trial
    device = torch.device(request.device)
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, request.limit / total))
    else:
        threading.Thread(target=_watch, args=(request.limit,), daemon=True).start()
    try:
        answer = measure_steps(request)
    except torch.OutOfMemoryError:
        answer = Trial(request.batch)
    except Exception as error:  # a model may fail in any way
        text = f"{type(error).__name__}: {error}"
        answer = Trial(request.batch) if "can't allocate memory" in text else text
    sender.send(answer)


def measure_steps(request: Request) -> Trial:
    """Takes training steps in this process, and says what they needed."""
    device = torch.device(request.device)
    model, optim_wrapper = build_training(request.cfg, device)
    batches = random_batches(request.cfg, request.batch, request.size)
    wait = synchronizer(device)
    for done in range(MOST_WARM_UP_STEPS):
        if done >= WARM_UP_STEPS and optim_wrapper.optimizer.state:
            break
        model.train_step(next(batches), optim_wrapper)
    wait()
    start = time.perf_counter()
    for _ in range(STEPS):
        model.train_step(next(batches), optim_wrapper)
    wait()
    seconds = (time.perf_counter() - start) / STEPS
    # On a GPU with what its allocator holds in pieces that are too small.
    peak = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else peak_resident()
    return Trial(request.batch, peak, request.batch / seconds)


def peak_resident() -> int:
    """Most bytes of memory that this process has had."""
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2) of each
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _watch(limit: int) -> None:
    """Ends this process when it takes more than it may."""
    while peak_resident() <= limit:
        time.sleep(WATCH_SECONDS)
    os._exit(TOO_LARGE)
