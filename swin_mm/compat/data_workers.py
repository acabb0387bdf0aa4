"""Ends the workers of a data loader with the process they load for.

For PyTorch 2.14 and earlier. A worker looks whether that process lives only while it waits for
indices; one that is blocked in handing over a batch outlives a kill, and holds memory for good.
And signals that go to all processes of a group (Ctrl-C, those of torchrun and `timeout`) end
workers at once, so that a process that wants to finish its step first, and save, fails in between.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

from swin_mm.compat.module_finder import Patch, wrap_once

LOOK_SECONDS = 1.0
# A terminal, torchrun, `timeout` and Slurm send these to workers as well; the training decides.
IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)

_run_worker: Any = None  # PyTorch's own


def _patch(module: ModuleType) -> None:
    global _run_worker
    if module._worker_loop is not run_worker:
        _run_worker = module._worker_loop
        vars(module)["_worker_loop"] = run_worker


def _patch_start(module: ModuleType) -> None:
    wrap_once(module._MultiProcessingDataLoaderIter, "__init__", _start_workers)


def _start_workers(start: Callable[..., None], *args: Any) -> None:
    """Starts workers with signals blocked, until they have chosen what to do at them.

    Libraries such as wandb start threads in each fork, before a worker's own code. They have the
    mask of the parent, and a signal that one thread does not block ends the whole worker.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*IGNORED, signal.SIGTERM})
    try:
        start(*args)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run_worker(*args: Any, **kwargs: Any) -> None:
    """Does what PyTorch's worker does, and ends where its process has ended."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        # The thread takes SIGTERM, since it learns who sent it.
        signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGTERM})
        threading.Thread(target=_end_with, args=(parent.pid,), daemon=True).start()
    if _run_worker is None:  # in a process that was spawned
        import swin_mm.compat

        swin_mm.compat.install()
    _run_worker(*args, **kwargs)


def _end_with(parent: int | None) -> None:
    """Ends this process when its parent has ended or terminates it."""
    while os.getppid() == parent:
        sent = signal.sigtimedwait({signal.SIGTERM}, LOOK_SECONDS)
        if sent is not None and sent.si_pid == parent:
            os._exit(0)  # as PyTorch's worker does
    os._exit(1)


PATCH = Patch(
    "data_workers",
    "workers of a killed process can live on",
    {"torch.utils.data._utils.worker": _patch, "torch.utils.data.dataloader": _patch_start},
)
