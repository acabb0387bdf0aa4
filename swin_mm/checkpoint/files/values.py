"""What the parts of the reader share: its errors, names in a file, and checks of plain values."""

import pickle
from typing import Any, NamedTuple

MAX_DIMS = 64
KEYS = (str, bytes, int, float, bool, type(None))


class FileContentError(pickle.UnpicklingError):
    """Content that a file of weights or predictions does not have."""


class ForbiddenError(FileContentError):
    """A file asks for a function or class that is no data; the argument is its name."""


class Global(NamedTuple):
    """A name in a file, which builds nothing by itself."""

    name: str

    def __str__(self) -> str:
        return self.name


def require(condition: bool, message: str) -> None:
    """Raises FileContentError for content that is no plain data."""
    if not condition:
        raise FileContentError(f"its content is damaged or no plain data: {message}")


def check_key(key: Any) -> Any:
    """Allows plain keys only: hashing nested tuples can take for ever."""
    parts = key if type(key) is tuple else (key,)
    is_plain = all(type(part) in KEYS for part in parts)
    require(is_plain, f"a key is a {type(key).__name__}, not a text or a number")
    return key


def to_mapping(value: Any) -> dict:
    """The value, if it is a dict."""
    require(isinstance(value, dict), f"a state is a {type(value).__name__}, not a dict")
    return value


def to_text(value: Any) -> str:
    """The value, if it is a text."""
    require(type(value) is str, f"{type(value).__name__} where a text was expected")
    return value


def to_sizes(values: Any, what: str) -> tuple[int, ...]:
    """The values, if they can be sizes, strides or offsets."""
    is_plain = isinstance(values, tuple | list) and all(type(v) is int for v in values)
    require(is_plain and len(values) <= MAX_DIMS, f"{what} of a tensor are not integers")
    require(all(0 <= v < 2**62 for v in values), f"{what} of a tensor are {tuple(values)}")
    return tuple(values)
