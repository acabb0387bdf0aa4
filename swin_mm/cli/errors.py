"""Tells apart errors that a user can fix and faults of the program."""

import multiprocessing
import re
from collections.abc import Iterable
from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from traceback import extract_tb, walk_tb

from swin_mm.configs import ConfigError

PACKAGE = Path(__file__).parents[1]
LOST_WORKER = re.compile(
    r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (?:is killed by signal: (\w+))?"
)
MULTIPROCESSING = Path(multiprocessing.__file__).parent
WORKER_TRACEBACK = "Original Traceback"
QUALIFIED = re.compile(r"^swin_mm(\.\w+)+: ")  # the type of our errors in a traceback
META_KEYS = ("img_shape", "ori_shape", "pad_shape", "batch_input_shape", "scale_factor")
# Of what a config names, and of `randomness` and the loaders in it.
UNKNOWN_KEY = re.compile(
    r"(?:(\w+)\.__init__|\w+\.(set_randomness))\(\) got an unexpected keyword argument '(\w+)'"
)
BUILD = "build_from_cfg"  # mmengine's function that builds what a config names
FETCH = ("_utils", "fetch.py")  # where PyTorch asks a data set for samples


def raise_first(contradictions: Iterable[tuple[object, str]]) -> None:
    """Raises ConfigError with the first message whose condition holds."""
    for is_wrong, message in contradictions:
        if is_wrong:
            raise ConfigError(message)


def explain_error(error: BaseException) -> str | None:
    """Says in one line what the user can fix; None where it takes a traceback to understand."""
    current: BaseException | None = error
    is_cause = True  # the error itself, or what it was raised `from`
    while current is not None:
        # Exceptions of our own and what our checks raise are written for users, and so are the
        # system's (a missing file, a full disk), unless code handled them and failed in doing so.
        is_ours = type(current).__module__.startswith("swin_mm.")
        is_check = isinstance(current, ValueError) and _raised_in(current, PACKAGE)
        if worker := _find_lost_worker(current):
            return (
                f"{worker}, often for lack of memory: lower num_workers or batch_size; train "
                "--resume goes on from the last checkpoint"
            )
        if is_ours or is_check or (is_cause and isinstance(current, OSError)):
            return _one_line(current)
        is_cause = is_cause and current.__cause__ is not None
        follow = not current.__suppress_context__
        current = current.__cause__ or (current.__context__ if follow else None)
    return (
        _explain_unknown_key(error)
        or _explain_build(error)
        or _explain_loading(error)
        or _explain_missing_label(error)
    )


def _find_lost_worker(error: BaseException) -> str | None:
    """Names the data worker that an error shows to have ended, or whose connection broke."""
    if worker := LOST_WORKER.search(str(error)):
        by = f" by {worker[2]}" if worker[2] else ""
        return f"a worker of the data loader (process {worker[1]}) was ended from outside{by}"
    # It is noticed in the middle of a batch before the end of the process is.
    if isinstance(error, OSError | EOFError) and _raised_in(error, MULTIPROCESSING):
        return "a worker of the data loader was ended from outside"
    return None


def was_interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C came, also where code took it for a failure of its own."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _raised_in(error: BaseException, folder: Path) -> bool:
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    return bool(frames) and folder in Path(frames[-1].f_code.co_filename).parents


def _explain_unknown_key(error: BaseException) -> str | None:
    """Names a key that nothing in the config takes, and the nearest argument that there is."""
    match = UNKNOWN_KEY.match(str(error)) if isinstance(error, TypeError) else None
    if match is None:
        return None
    owner, key = match[1] or match[2], match[3]
    built = [f.f_locals.get("obj_cls") for f, _ in walk_tb(error.__traceback__)]
    bases = [c for kind in built[::-1] if isinstance(kind, type) for c in kind.__mro__[:-1]]
    if owner in (base.__name__ for base in bases):
        owner = bases[0].__name__  # that the config names
    makers = [vars(base)["__init__"] for base in bases if "__init__" in vars(base)]
    known = {name for maker in makers for name in signature(maker).parameters}
    nearest = get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    return f"the config does not fit: {owner} takes no {key!r}{hint}"


def _explain_build(error: BaseException) -> str | None:
    """Describes a type that mmengine did not find, or that rejects what a config gives it."""
    import mmengine

    if _raised_in(error, Path(mmengine.__file__).parent / "registry"):
        return f"the config does not fit: {_one_line(error)}"
    built = [f.f_locals for f, _ in walk_tb(error.__traceback__) if f.f_code.co_name == BUILD]
    if not built or "obj_type" not in built[-1]:
        return None
    kind = built[-1]["obj_type"]
    name = getattr(kind, "__name__", kind)
    return f"the config does not fit: {name} raises {_locate(error)}"


def _explain_loading(error: BaseException) -> str | None:
    """Describes what a data set raised in a data loader."""
    files = [Path(frame.f_code.co_filename).parts[-2:] for frame, _ in walk_tb(error.__traceback__)]
    if FETCH in files:
        return f"the data loader failed: {_locate(error)}"
    if WORKER_TRACEBACK in str(error):
        return f"the data loader failed: {type(error).__name__}: {_one_line(error)}"
    return None


def _explain_missing_label(error: BaseException) -> str | None:
    """Describes what a model needs and the pipeline does not give, such as boxes."""
    from mmengine.structures import BaseDataElement

    if isinstance(error, KeyError) and error.args and error.args[0] in META_KEYS:
        return f"the model needs {error.args[0]!r}: name it in meta_keys of the packing transform"
    if not isinstance(error, AttributeError) or not isinstance(error.obj, BaseDataElement):
        return None
    found = ", ".join(sorted(error.obj.all_keys())) or "nothing"
    return (
        f"the model needs {error.name!r} of an image, and the pipeline gives {found}: set "
        "with_bbox, with_mask or with_seg of LoadAnnotations, or meta_keys of the packing transform"
    )


def _locate(error: BaseException) -> str:
    """The type and message of an error and where it was raised; of a bare `assert`, its text."""
    frame = extract_tb(error.__traceback__)[-1]
    message = _one_line(error) if str(error) else frame.line
    return f"{type(error).__name__}: {message} ({frame.filename}:{frame.lineno})"


def _one_line(error: BaseException) -> str:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    # A worker of a data loader sends its traceback as text, with the type and message at its end.
    if WORKER_TRACEBACK in text:
        return QUALIFIED.sub("", lines[-1])
    return " ".join(lines)
