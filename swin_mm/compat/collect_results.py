"""Collects the results of an evaluation over the network, not through a folder.

For mmengine 0.10, whose metrics write the results of each process to `.dist_test` in the current
folder and read all of them in the first process: this fails where machines do not share the folder.
"""

from collections.abc import Callable
from functools import cache
from itertools import chain, zip_longest
from types import ModuleType
from typing import Any

from swin_mm.compat.module_finder import Patch, wrap_once

MISSING = object()


def _patch(module: ModuleType) -> None:
    wrap_once(module, "collect_results", collect_results)


def collect_results(
    original: Callable[..., list | None],
    results: list,
    size: int,
    device: str = "cpu",
    tmpdir: str | None = None,
) -> list | None:
    """Replaces mmengine's `collect_results`; a metric's own `collect_dir` or device stays in use.

    Processes take the samples of a data set in turn. What samplers add to give all processes as
    many is dropped: of all results the first `size` are kept, in the order of the data set; None is
    returned but in the first process.
    """
    from mmengine.dist import get_rank, get_world_size
    from mmengine.evaluator.metric import _to_cpu
    from torch.distributed import GroupMember, gather_object

    if device != "cpu" or tmpdir is not None or get_world_size() == 1:
        return original(results, size, device, tmpdir)
    parts: list[Any] | None = [None] * get_world_size() if get_rank() == 0 else None
    gather_object(_to_cpu(results), parts, dst=0, group=_cpu_group(GroupMember.WORLD))
    if parts is None:
        return None
    in_order = chain.from_iterable(zip_longest(*parts, fillvalue=MISSING))
    return [result for result in in_order if result is not MISSING][:size]


@cache
def _cpu_group(default: Any) -> Any:
    """All processes of a run, connected by gloo: NCCL would need the memory of the GPU for it."""
    from torch.distributed import get_backend, new_group

    return default if get_backend() == "gloo" else new_group(backend="gloo")


PATCH = Patch(
    "collect_results",
    "mmengine's metrics need a folder that all machines share",
    {"mmengine.evaluator.metric": _patch},
)
