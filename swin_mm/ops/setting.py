"""What decides, apart from a module and its tensors' sizes, which implementation can run."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

Graph = Literal["eager", "compile", "export", "trace"]


class Setting(NamedTuple):
    """Where and how an operator runs."""

    device: torch.device
    dtype: torch.dtype  # of the map
    autocast_dtype: torch.dtype | None = None  # of autocast on that device; None where it is off
    needs_grad: bool = False
    graph: Graph = "eager"  # what records the code; eager code runs at once
    is_exact_tensor: bool = True  # of no subclass, as quantised and distributed ones are
    is_transformed: bool = False  # by torch.func or forward-mode derivatives
    # Whether a dispatch mode, as of counters and fake tensors, must see each operator. Compilers
    # have modes of their own, which know the operators of kernels.
    under_dispatch_mode: bool = False
    has_onednn: bool = False  # available and switched on
    self_tests: int = 0  # how many results there are, see `swin_mm.ops.self_test`

    @property
    def linear_dtype(self) -> torch.dtype:
        """What linear layers compute in."""
        return self.autocast_dtype or self.dtype

    @property
    def norm_dtype(self) -> torch.dtype:
        """What norms return: on a GPU float32 under autocast, which on a CPU leaves them alone."""
        is_cast = self.autocast_dtype is not None and self.device.type == "cuda"
        return torch.float32 if is_cast else self.dtype


# Appended to by `swin_mm.ops.self_test`, so that a new result makes modules choose again.
self_test_results: list[object] = []


def setting_of(x: Tensor, needs_grad: bool) -> Setting:
    """The setting in which an operator on `x` is called."""
    kind = x.device.type
    autocast_dtype = None
    if kind != "meta" and torch.is_autocast_enabled(kind):  # the meta device has none
        autocast_dtype = torch.get_autocast_dtype(kind)
    if torch.compiler.is_compiling():
        # `torch.compiler.is_exporting()` is true in all compiled code of PyTorch 2.11.
        graph: Graph = "export" if torch.compiler._is_exporting_flag else "compile"
        return Setting(x.device, x.dtype, autocast_dtype, needs_grad, graph)
    is_tracing = torch.jit.is_tracing()
    is_transformed = torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    return Setting(
        x.device,
        x.dtype,
        autocast_dtype,
        # A traced graph also runs where gradients are wanted, and tensors inside a transform do not
        # tell whether they need one.
        needs_grad or is_tracing or is_transformed,
        "trace" if is_tracing else "eager",
        type(x) is Tensor or type(x) is torch.nn.Parameter,
        is_transformed,
        torch._C._len_torch_dispatch_stack() > 0,
        kind == "cpu" and torch._C._get_mkldnn_enabled(),
        len(self_test_results),
    )


def needs_plain_operators() -> bool:
    """Whether `torch.func`, as by vmap, forward-mode derivatives or `torch.jit.trace` are active.

    `torch.autograd.Function` without rules for them raises or is lost.
    """
    is_transformed = torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    return is_transformed or torch.jit.is_tracing()


def is_exact_tensor(*tensors: Tensor | None) -> bool:
    """Whether tensors are of no subclass, as quantised and distributed ones are."""
    return all(type(t) in (Tensor, torch.nn.Parameter, type(None)) for t in tensors)
