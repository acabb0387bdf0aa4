"""Measures pieces of work, each with all candidates, and draws up the result."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec

import torch

from swin_mm.benchmark import backbones
from swin_mm.benchmark.floor import DeviceSpeed, count, floor_seconds
from swin_mm.benchmark.measure import measure, warm_up
from swin_mm.benchmark.report import Case, Row
from swin_mm.benchmark.step import Candidate, Prepared, prepare, release
from swin_mm.benchmark.work import Work

Progress = Callable[[str, int, int], None]  # what is done now, steps done, steps in all


def run_case(
    title: str,
    work: Work,
    candidates: Sequence[Candidate],
    rounds: int,
    speed: DeviceSpeed,
    on_progress: Progress = lambda note, done, total: None,
) -> Case:
    """Measures one piece of work.

    Args:
        title: What distinguishes it from others of the run.
        work: The work.
        candidates: Who does it. Those that cannot get a row that says why.
        rounds: Rounds that count.
        speed: What the device can do.
        on_progress: Told how far it is.

    Returns:
        The result.
    """
    release(work.device)
    total = len(candidates) * (rounds + 2)  # preparing one is a step, and a round does not count
    done = 0

    def advance(note: str) -> None:
        nonlocal done
        done += 1
        on_progress(note, min(done, total), total)

    prepared: dict[Candidate, Prepared] = {}
    passes: dict[Candidate, int] = {}
    errors: dict[Candidate, str] = {}
    for candidate in candidates:
        on_progress(f"preparing {candidate}", done, total)
        try:
            require(candidate.library)
            prepared[candidate] = prepare(candidate, work)
            passes[candidate] = warm_up(prepared[candidate].runner)
        except Exception as error:  # any library may fail in any way, and the others go on
            prepared.pop(candidate, None)
            errors[candidate] = describe_error(error)
        advance(f"prepared {candidate}")

    seconds = measure(
        {candidate: ready.runner for candidate, ready in prepared.items()},
        passes,
        rounds,
        on_step=lambda: advance("measuring"),
        on_error=lambda candidate, error: errors.update({candidate: describe_error(error)}),
    )
    floor = None if work.part == "config" else floor_seconds(count(work), speed)
    rows = []
    for candidate in candidates:
        ready = prepared.get(candidate)
        rows.append(
            Row(
                library=candidate.library,
                how=candidate.how,
                seconds=seconds.get(candidate, []),
                parameters=ready and ready.parameters,
                peak_bytes=ready and ready.peak_bytes,
                error=errors.get(candidate),
                differs=_difference(candidate.library, work),
            )
        )
    prepared.clear()
    return Case(title, work, rows, floor)


def require(library: str) -> None:
    """Raises MissingPeerError where a library is not installed."""
    if find_spec(library) is None:
        raise backbones.MissingPeerError("not installed")


def describe_error(error: Exception) -> str:
    """One line for the table."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory"
    if isinstance(error, backbones.MissingPeerError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _difference(library: str, work: Work) -> str:
    if work.part == "backbone":
        return backbones.DIFFERENCES.get((library, work.version), "")
    return ""
