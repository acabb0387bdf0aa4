"""Tells errors that a user can mend from faults of the program."""

from collections.abc import Iterator
from pathlib import Path
from traceback import walk_tb

PACKAGE = Path(__file__).parents[1]


class ConfigError(ValueError):
    """A config, or an option that changes one, that cannot be used; the message says why."""


def explain_error(error: BaseException) -> str | None:
    """Says in one line what the user can mend.

    Args:
        error: What a command raised.

    Returns:
        The line, or None for an error that needs a traceback to be understood.
    """
    for cause in _chain(error):
        # Exceptions of our own and what we refuse are written for users, and so are the system's
        # (a missing file, a full disk).
        is_ours = type(cause).__module__.startswith("swin_mm.")
        is_refusal = isinstance(cause, ValueError) and _raised_in(cause, PACKAGE)
        if is_ours or is_refusal or isinstance(cause, OSError):
            return _one_line(cause)
    if _is_registry_error(error):
        return f"the config does not fit: {_one_line(error)}"
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and those it was raised from, last first."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or (
            None if current.__suppress_context__ else current.__context__
        )


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
