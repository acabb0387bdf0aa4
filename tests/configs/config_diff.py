"""Differences of two fully resolved configs, and the list of those that are meant."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple


class Missing:
    """Stands for a value that one of the two does not have."""

    def __repr__(self) -> str:
        return "(absent)"


MISSING = Missing()


class Difference(NamedTuple):
    """Two values of one key."""

    ours: Any
    theirs: Any


class Meant(NamedTuple):
    """A difference that is meant, as a pattern of keys, and why.

    `*` in the pattern stands for any characters, dots too.
    """

    pattern: str
    reason: str


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Leaves of nested mappings and sequences.

    Returns:
        Values by key, such as `train_dataloader.dataset.pipeline.2.prob`; places in a sequence are
        numbers. A mapping or sequence without items is a leaf itself, the sequence as a tuple.
    """
    if isinstance(node, Mapping) and node:
        items = [(str(key), value) for key, value in node.items()]
    elif isinstance(node, Sequence) and not isinstance(node, str) and node:
        items = [(str(index), value) for index, value in enumerate(node)]
    else:
        return {prefix: tuple(node) if isinstance(node, list) else node}
    leaves = {}
    for key, value in items:
        leaves |= flatten(value, f"{prefix}.{key}" if prefix else key)
    return leaves


def find_differences(ours: Mapping, theirs: Mapping) -> dict[str, Difference]:
    """Keys with unlike values, or that only one of the two has; lists and tuples are alike."""
    a, b = flatten(ours), flatten(theirs)
    pairs = {key: Difference(a.get(key, MISSING), b.get(key, MISSING)) for key in a | b}
    return {key: pair for key, pair in pairs.items() if pair.ours != pair.theirs}


def assert_differs_only_as_meant(
    ours: Mapping, theirs: Mapping, meant: Sequence[tuple[str, str]]
) -> None:
    """Fails on a difference that no pattern names, and on a pattern that names none.

    Args:
        ours: A resolved config, or a part of it.
        theirs: The other.
        meant: Pairs of a pattern of keys and the reason, as in `Meant`.
    """
    meant = [Meant(*pair) for pair in meant]
    differences = find_differences(ours, theirs)
    unexplained = [
        f"{key}: ours {ours}, theirs {theirs}"
        for key, (ours, theirs) in sorted(differences.items())
        if not any(fnmatchcase(key, entry.pattern) for entry in meant)
    ]
    idle = [
        f"{entry.pattern} ({entry.reason})"
        for entry in meant
        if not any(fnmatchcase(key, entry.pattern) for key in differences)
    ]
    assert not unexplained, "not on the list of differences:\n  " + "\n  ".join(unexplained)
    assert not idle, "on the list, but there is no such difference:\n  " + "\n  ".join(idle)
    assert all(entry.reason for entry in meant), "a difference without a reason"


def state_defaults(node: Mapping, function: Callable) -> dict[str, Any]:
    """Adds to the arguments of a function or class those that it would take by default.

    Some configs state defaults, others leave them out; with this the two compare equal.
    """
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    return {**defaults, **node}
