"""Finds weights that are NaN or infinite: a training that diverged leaves such checkpoints."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from swin_mm.checkpoint.errors import CheckpointError
from swin_mm.checkpoint.report import list_names


def list_non_finite(state: Any) -> list[str]:
    """Names the tensors, at any depth of a dict, that hold NaN or infinite values.

    Additive masks, of nothing but 0 and minus infinity, are finite enough.
    """
    return [name for name, tensor in _named_tensors(state, "") if not _is_finite(tensor)]


def check_finite(checkpoint: Mapping[str, Any], file: str) -> None:
    """Raises CheckpointError where a weight of the content of `file` is NaN or infinite."""
    if bad := list_non_finite(checkpoint):
        raise CheckpointError(
            f"{file} holds NaN or infinite values in {list_names(bad)}, as a training that "
            "diverged leaves them: take an earlier checkpoint"
        )


def _named_tensors(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    # A file may hold itself, but no weight lies so deep.
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping) and name.count(".") < 64:
        for key, item in value.items():
            yield from _named_tensors(item, f"{name}.{key}" if name else str(key))


def _is_finite(tensor: Tensor) -> bool:
    if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.is_meta:
        return True
    if hasattr(tensor, "to_local"):  # each process looks at its part of a divided one
        tensor = tensor.to_local()
    if tensor.element_size() == 1:  # float8 has few operators
        tensor = tensor.float()
    finite = tensor.isfinite()
    return bool(finite.all()) or bool(((tensor == 0) | (tensor == float("-inf"))).all())
