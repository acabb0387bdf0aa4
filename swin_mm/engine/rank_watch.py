"""Ends a rank in one line when another has ended, which collectives of a GPU would wait for."""

import os
import re
import select
import signal
import sys
import threading
from traceback import StackSummary, extract_stack, extract_tb
from types import TracebackType

from mmengine.dist import all_gather_object, barrier, get_dist_info
from torch.distributed import DistError

# Time for this rank to fail by itself, with gloo's error or its own, before it is ended.
GRACE_SECONDS = 10.0
LOOK_SECONDS = 1.0
LOST_RANK = re.compile(
    r"Connection (closed|reset|refused)|Broken pipe|pair closure|NCCL communicator was aborted"
    r"|remote process exited"
)

# gloo's; NCCL's watchdog ends the process itself, with a report of its own.
TIMED_OUT = re.compile(r"Timed out waiting (\d+)ms")
FRAMES_SHOWN = 4


class RankTimeoutError(RuntimeError):
    """The other ranks did not come to a collective in time; the message says where this one was."""


class LostRankError(RuntimeError):
    """Another rank of the run has ended; the message names it where it ran on this machine."""


class RankWatch:
    """While entered, watches the other ranks of this machine and the torchrun that started them.

    When a rank ends, this one ends as well: with an error of its own, or else with a line on
    standard error, which says where it was, and status 1. So where a collective times out, because
    some ranks wait for others that do something else, each says what it did. When torchrun ends, a
    training saves and stops.

    Only Linux lets processes be watched.

    Raises:
        LostRankError: In place of an error of a collective that lost a rank.
        RankTimeoutError: In place of an error of a collective that took too long.
    """

    def __enter__(self) -> "RankWatch":
        self.rank, self.world_size = get_dist_info()
        self.ranks: dict[int, str] = {}  # by a descriptor that can be read when the rank has ended
        self.launcher: int | None = None
        self.is_over = threading.Event()
        own = _machine(), os.getpid()
        for other, (machine, process) in enumerate(self._gather(own)):
            if other != self.rank and machine and machine == own[0]:
                self.ranks[os.pidfd_open(process)] = f"rank {other} (process {process})"
        if own[0] and "TORCHELASTIC_RUN_ID" in os.environ:
            self.launcher = os.pidfd_open(os.getppid())
        if self.ranks or self.launcher is not None:
            threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                barrier()  # so that no rank takes the others' end for a loss
            elif self.world_size > 1 and (waited := TIMED_OUT.search(str(error))):
                where = describe_stack(extract_tb(traceback))
                raise RankTimeoutError(
                    f"rank {self.rank} waited {int(waited[1]) / 1000:g} s for the others in {where}"
                    "; they say where they were (env_cfg.dist_cfg.timeout is the limit, in seconds)"
                ) from error
            elif self.world_size > 1 and _is_lost_rank(error):
                raise LostRankError(self._explain()) from error
        finally:
            self.is_over.set()

    def _gather(self, own: tuple[str | None, int]) -> list[tuple[str | None, int]]:
        try:
            return all_gather_object(own)
        except RuntimeError as error:
            raise LostRankError(self._explain()) from error

    def _watch(self) -> None:
        watched = [*self.ranks, *([] if self.launcher is None else [self.launcher])]
        while not self.is_over.is_set():
            ended, _, _ = select.select(watched, [], [], LOOK_SECONDS)
            if self.launcher in ended:
                watched.remove(self.launcher)
                os.kill(os.getpid(), signal.SIGTERM)
            elif ended and not self.is_over.wait(GRACE_SECONDS):
                frame = sys._current_frames()[threading.main_thread().ident or 0]
                where = f"rank {self.rank} was in {describe_stack(extract_stack(frame))}"
                os.write(2, f"swin-mm: error: {self._explain()}; {where}\n".encode())
                os._exit(1)

    def _explain(self) -> str:
        # The connections of a process are closed a little before it counts as ended.
        ended, _, _ = select.select(list(self.ranks), [], [], LOOK_SECONDS)
        who = " and ".join(self.ranks[descriptor] for descriptor in ended)
        verb = "have" if len(ended) > 1 else "has"
        return (
            f"{who or 'another rank'} {verb} ended, and its own output says why; start the run "
            "again (train --resume goes on from the last checkpoint)"
        )


def describe_stack(stack: StackSummary) -> str:
    """The last functions that were called, the innermost first, in one line."""
    shown = [f"{f.name} ({os.path.basename(f.filename)}:{f.lineno})" for f in reversed(stack)]
    return " < ".join(shown[:FRAMES_SHOWN])


def _is_lost_rank(error: BaseException | None) -> bool:
    while error is not None:
        # An `OSError` is of a connection to a data worker, whose end has an error of its own.
        is_of_ranks = not isinstance(error, OSError) and LOST_RANK.search(str(error))
        if isinstance(error, DistError) or is_of_ranks:
            return True
        error = error.__cause__ or error.__context__
    return False


def _machine() -> str | None:
    """What is the same for processes that know each other by their ids, None where unknown."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return None
