"""Counts, on the CPU, what would wait for a GPU: by what PyTorch does for it."""

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode


class HostReads(TorchDispatchMode):
    """Within it, `count` goes up with every `item()`, `float(tensor)` and `bool(tensor)`."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


class _HostCalls(TorchFunctionMode):
    """Counts calls that PyTorch answers on the host before operators are dispatched."""

    NAMES = ("tolist", "numpy", "cpu")

    def __init__(self, counter):
        super().__init__()
        self.counter = counter

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.counter.count += getattr(func, "__name__", "") in self.NAMES
        return func(*args, **(kwargs or {}))


class Waits(TorchDispatchMode):
    """Within it, `count` goes up with every number read, and every size that depends on data."""

    NAMES = (
        *("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "bincount"),
        *("_unique2", "unique_dim", "nms", "equal"),
    )

    def __init__(self):
        super().__init__()
        self.count = 0
        self.host_calls = _HostCalls(self)

    def __enter__(self):
        self.host_calls.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.host_calls.__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            masks = (torch.bool, torch.uint8)
            self.count += any(i is not None and i.dtype in masks for i in args[1])
        elif name == "repeat_interleave":
            self.count += "output_size" not in (kwargs or {})
        else:
            self.count += name in self.NAMES
        return func(*args, **(kwargs or {}))
