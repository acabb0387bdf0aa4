"""Tells errors that a user can mend from faults of the program."""

import re
from collections.abc import Iterable
from pathlib import Path
from traceback import walk_tb

from swin_mm.configs import ConfigError

PACKAGE = Path(__file__).parents[1]
LOST_WORKER = re.compile(
    r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (?:is killed by signal: (\w+))?"
)
LOST_RANK = re.compile(
    r"Connection (closed|reset) by peer|NCCL communicator was aborted|remote process exited"
)


def raise_first(contradictions: Iterable[tuple[object, str]]) -> None:
    """Refuses options.

    Args:
        contradictions: Whether something is wrong, and the message that says what and how to mend
            it.

    Raises:
        ConfigError: With the first message whose condition holds.
    """
    for is_wrong, message in contradictions:
        if is_wrong:
            raise ConfigError(message)


def explain_error(error: BaseException) -> str | None:
    """Says in one line what the user can mend.

    Args:
        error: What a command raised.

    Returns:
        The line, or None for an error that needs a traceback to be understood.
    """
    current: BaseException | None = error
    is_cause = True  # the error itself, or what it was raised `from`
    while current is not None:
        # Exceptions of our own and what we refuse are written for users, and so are the system's
        # (a missing file, a full disk), unless code dealt with them and failed in doing so.
        is_ours = type(current).__module__.startswith("swin_mm.")
        is_refusal = isinstance(current, ValueError) and _raised_in(current, PACKAGE)
        if is_ours or is_refusal or (is_cause and isinstance(current, OSError)):
            return _one_line(current)
        if lost := _explain_lost_process(str(current)):
            return lost
        is_cause = is_cause and current.__cause__ is not None
        follow = not current.__suppress_context__
        current = current.__cause__ or (current.__context__ if follow else None)
    if _is_registry_error(error):
        return f"the config does not fit: {_one_line(error)}"
    return None


def _explain_lost_process(text: str) -> str | None:
    """Words how PyTorch says that another process of a run has ended."""
    if worker := LOST_WORKER.search(text):
        return (
            f"a worker of the data loader (process {worker[1]}) was ended from outside"
            f"{' by ' + worker[2] if worker[2] else ''}, often for lack of memory: lower "
            "num_workers or batch_size; train --resume goes on from the last checkpoint"
        )
    if LOST_RANK.search(text):
        return (
            "another process of this run has ended, and its own output says why; train --resume "
            "goes on from the last checkpoint"
        )
    return None


def _raised_in(error: BaseException, folder: Path) -> bool:
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    return bool(frames) and folder in Path(frames[-1].f_code.co_filename).parents


def _is_registry_error(error: BaseException) -> bool:
    """Whether mmengine found no such type, or a type refused the arguments that a config gives."""
    import mmengine

    in_registry = _raised_in(error, Path(mmengine.__file__).parent / "registry")
    return in_registry and isinstance(error, KeyError | TypeError)


def _one_line(error: BaseException) -> str:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    # A worker of a data loader sends its traceback as text, with the error at its end.
    return lines[-1] if "Original Traceback" in text else " ".join(lines)
