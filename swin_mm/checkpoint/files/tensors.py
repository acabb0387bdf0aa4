"""Tensors and arrays from what a pickle says of them, of which nothing is believed."""

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from swin_mm.checkpoint.files.values import Global, require, to_sizes, to_text

# Elements of a tensor that repeats a smaller storage, as `expand` makes them.
MAX_REPEATED = 2**26
# Numbers and texts; the state of object and structured types is no plain data.
PLAIN_DTYPE = re.compile(r"[<=|]?([?bBhHiIlLqQefdgFDG]|[biufc]\d{1,2}|[SU]\d{1,6})")


class Storage(NamedTuple):
    """Memory of tensors."""

    bytes: torch.UntypedStorage
    dtype: torch.dtype

    def __str__(self) -> str:
        return f"bare memory of {len(self.bytes)} bytes"


def make_tensor(
    storage: Any, offset: Any, size: Any, stride: Any, dtype: torch.dtype | None = None
) -> Tensor:
    """Makes a tensor of a `Storage`, all of which lies inside; offset and strides are in elements.

    Raises:
        FileContentError: They are of other types, or reach outside of the memory.
    """
    require(type(storage) is Storage, "a tensor without memory")
    dtype = storage.dtype if dtype is None else dtype
    require(isinstance(dtype, torch.dtype), "a tensor of unknown type")
    size, stride = to_sizes(size, "sizes"), to_sizes(stride, "strides")
    (offset,) = to_sizes((offset,), "offsets")
    require(len(size) == len(stride), f"a tensor has {len(size)} sizes, {len(stride)} strides")
    there, numel = len(storage.bytes) // dtype.itemsize, math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    require(
        offset <= there and (numel == 0 or last < there),
        f"a tensor of {size} reaches outside of its {there} stored values",
    )
    require(numel <= max(there, MAX_REPEATED), f"a tensor of {size} repeats {there} values")
    empty = torch.empty(0, dtype=dtype, device=storage.bytes.device)
    return empty.set_(storage.bytes, offset, size, stride)


def _tensor_v2(
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    requires_grad: Any = False,
    hooks: Any = None,
    metadata: Any = None,
    *,
    dtype: Any = None,
) -> Tensor:
    require(not metadata, "a tensor is marked as conjugated or negated")
    tensor = make_tensor(storage, offset, size, stride, dtype)
    is_float = tensor.is_floating_point() or tensor.is_complex()
    return tensor.requires_grad_() if requires_grad is True and is_float else tensor


def _tensor_v3(*arguments: Any) -> Tensor:
    """As `_tensor_v2`, with the type before the metadata: of memory without a type."""
    require(len(arguments) in (7, 8), "a tensor without its type")
    return _tensor_v2(*arguments[:6], *arguments[7:], dtype=arguments[6])


def _parameter(data: Any, requires_grad: Any = True, hooks: Any = None, state: Any = None) -> Any:
    require(isinstance(data, Tensor), "a parameter is no tensor")
    return nn.Parameter(data.detach(), requires_grad is True)


def _from_array(data: Any, dtype: Any, device: Any, requires_grad: Any) -> Tensor:
    """Tensors of devices such as TPUs come as arrays or as tensors of the CPU."""
    require(isinstance(data, np.ndarray | Tensor), "a tensor is none")
    require(isinstance(dtype, torch.dtype), "a tensor of unknown type")
    return torch.tensor(data, dtype=dtype) if isinstance(data, np.ndarray) else data.to(dtype)


def _device(kind: Any, index: Any = None) -> torch.device:
    return torch.device(to_text(kind)) if index is None else torch.device(to_text(kind), int(index))


# Arrays


def _dtype(code: Any, align: Any = False, copy: Any = False) -> np.dtype:
    code = code.decode("ascii") if isinstance(code, bytes) else to_text(code)
    require(PLAIN_DTYPE.fullmatch(code) is not None, f"an array of {code}")
    return np.dtype(code)


def check_dtype(dtype: np.dtype, state: Any) -> None:
    """The state is version, byte order, and six entries of structured types and of texts."""
    require(type(state) is tuple and len(state) == 8, "a type of numbers is not plain")
    _, order, subtype, names, fields, size, _, flags = state
    order = order.decode("latin1") if isinstance(order, bytes) else order
    plain = subtype is names is fields is None and size in (-1, dtype.itemsize)
    plain = plain and flags in (0, 8)  # texts must be initialised
    require(plain and order in ("<", "=", "|"), "a type of numbers is not plain")


def _reconstruct(kind: Any, shape: Any, code: Any) -> np.ndarray:
    require(kind == Global("numpy.ndarray"), "an array is of an unknown class")
    return np.empty(0, dtype="b")


def set_array(array: np.ndarray, state: Any) -> None:
    require(type(state) is tuple and len(state) == 5, "the state of an array is not one")
    require(array.shape == (0,), "an array is filled twice")
    _, shape, dtype, is_fortran, data = state
    data = data.encode("latin1") if isinstance(data, str) else data
    shape = _check_array(data, dtype, shape)
    set_state: Any = array.__setstate__  # numpy's stub takes no tuple of five
    set_state((1, shape, dtype, bool(is_fortran), bytes(data)))


def _check_array(data: Any, dtype: Any, shape: Any) -> tuple[int, ...]:
    require(isinstance(data, bytes | bytearray), "an array without its bytes")
    is_plain = isinstance(dtype, np.dtype) and dtype.kind in "biufcSU" and dtype.itemsize > 0
    require(is_plain, "an array of unknown type")
    shape = (shape,) if type(shape) is int else shape
    shape = to_sizes(shape, "sizes")
    require(len(shape) <= 32, "an array has too many dimensions")
    wanted = math.prod(shape) * dtype.itemsize
    require(wanted == len(data), f"an array of {shape} has {len(data)} bytes, wanted {wanted}")
    return shape


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> np.ndarray:
    shape = _check_array(data, dtype, shape)
    require(order in ("C", "F") and axes is None, "an array in an unknown order")
    return np.frombuffer(data, dtype).reshape(shape, order=order).copy(order)


def _scalar(dtype: Any, data: Any = b"") -> Any:
    data = data.encode("latin1") if isinstance(data, str) else data
    _check_array(data, dtype, ())
    return np.frombuffer(data, dtype)[0]


def _size(sizes: Any = ()) -> torch.Size:
    return torch.Size(to_sizes(sizes, "sizes"))


STORAGE_DTYPES = {
    f"{module}.{name}": dtype
    for dtype, name in torch.storage._dtype_to_storage_type_map().items()
    if not name.startswith("Q")
    for module in ("torch", "torch.cuda")
} | {"torch.storage.UntypedStorage": torch.uint8, "torch.UntypedStorage": torch.uint8}

TENSOR_BUILDERS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": make_tensor,
    "torch._utils._rebuild_tensor_v2": _tensor_v2,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_device_tensor_from_numpy": _from_array,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _from_array,
    "torch.Size": _size,
    "torch.device": _device,
    "numpy.dtype": _dtype,
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _from_buffer,
}
