"""The lean path of blocks, embedding and merging: few launches, one pass over memory each.

Between the products of matrices and the attention, a lean block runs three kernels: residual sum
with norm twice (the first adds what the block before left), and bias with GELU. Biases of the
layers before a sum are added in it, the next layer's dtype is written at once, and backward keeps
the narrow products and no GELU.

`attn_backend="triton"` asks for it, together with the attention's kernels; `auto` takes it on a GPU
where the kernels have passed a trial. Where a block is not what the kernels compute, or is to be
seen from outside, it takes the readable path, and the reason is logged at debug level.
"""

import logging
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from swin_mm.models.layers.linear import (
    has_global_hook,
    has_hooks,
    is_exact_gelu,
    is_idle,
    is_seen,
    norm_refusal,
    parameters_of,
)
from swin_mm.ops import row_trials, trial
from swin_mm.ops.norm import Branch, add_norm
from swin_mm.ops.row_trials import Work
from swin_mm.ops.transforms import is_watched
from swin_mm.ops.triton.support import row_refusal

logger = logging.getLogger("swin_mm")


class Stream(NamedTuple):
    """A map on its way from block to block.

    Attributes:
        x: `(B, H, W, C)`.
        branch: What is still to be added to `x`; `None` for nothing.
        narrow: `x` in the dtype that linear layers compute in, where a kernel has written it.
    """

    x: Tensor
    branch: Branch | None = None
    narrow: Tensor | None = None

    def settle(self) -> Tensor:
        """The map with everything added, `(B, H, W, C)`."""
        if self.branch is None:
            return self.x
        return add_norm(self.x, self.branch, None, self.x.dtype, "triton")[0]

    def normalise(self, norm: nn.Module) -> tuple[Tensor, Tensor]:
        """The map with everything added, and that map after a norm."""
        if self.branch is None or norm_refusal(norm) or is_seen(norm):
            x = self.settle()
            return x, norm(x)
        return add_norm(self.x, self.branch, parameters_of(norm), norm_dtype(self.x), "triton")


def advance(block: nn.Module, stream: Stream) -> Stream:
    """Takes a map through a block, in the lean way where that can be."""
    if refusal(block, stream.x) is None:
        return block.run_lean(stream)
    return Stream(block(stream.settle()))


def refusal(block: nn.Module, x: Tensor) -> str | None:
    """Tells why a block takes the readable path on a map; `None` where it takes the lean one."""
    attn = getattr(block, "attn", None)
    reason = "it has no attention" if attn is None else _backend_refusal(attn.attn_backend, x)
    if reason is not None:
        return reason
    reason = _module_refusal(block) or _tensor_refusal((block.norm1, block.norm2), x)
    if reason is None and attn.attn_backend == "auto":
        hidden = block.mlp.fc1.out_features
        reason = _trial_refusal(x, (block.lean_sum, x.shape[-1]), ("mlp", hidden))
    if reason is not None and not torch.compiler.is_compiling():
        log_refusal(type(block).__name__, reason)
    return reason


def _backend_refusal(attn_backend: str, x: Tensor) -> str | None:
    """Why a backend has no lean path, before anything else is asked."""
    if attn_backend == "triton" or (attn_backend == "auto" and trial.is_gpu(x.device)):
        return None
    return "attn_backend is not 'triton', nor 'auto' on a GPU"


def _trial_refusal(x: Tensor, *operators: tuple[str, int]) -> str | None:
    """Why `auto` does not take the kernels of operators, each with its channels."""
    if is_watched():
        return "a mode watches the operators"
    dtypes = norm_dtype(x), linear_dtype(x)
    for operator, channels in operators:
        reason = row_trials.refusal(Work(operator, channels, x.device, *dtypes))
        if reason is not None:
            return f"{operator}: {reason}"
    return None


def _module_refusal(block: nn.Module) -> str | None:
    attn, mlp = block.attn, block.mlp
    if "run_lean" not in vars(type(block)):  # its `forward` may be another too
        return f"{type(block).__name__} has no lean form"
    for layer in (attn.proj, mlp.fc1, mlp.fc2):
        if type(layer) is not nn.Linear:
            return f"a linear layer is {type(layer).__name__}"
    if not is_exact_gelu(mlp.act):
        return f"the activation is {mlp.act}"
    if not (is_idle(attn.proj_drop) and is_idle(mlp.drop)):
        return "dropout is active"
    reason = norm_refusal(block.norm1) or norm_refusal(block.norm2)
    if reason is not None:
        return reason
    bypassed = (block, attn, attn.proj, attn.proj_drop, block.drop_path, block.norm1, block.norm2)
    return hook_refusal((*bypassed, mlp, mlp.fc1, mlp.act, mlp.fc2, mlp.drop))


def _tensor_refusal(norms: Iterable[nn.Module], x: Tensor) -> str | None:
    for norm in norms:
        reason = row_refusal(norm.weight.shape[0], x, norm.weight, norm.bias)
        if reason is not None:
            return reason
        if norm.weight.dtype != x.dtype and not torch.is_autocast_enabled(x.device.type):
            return f"without autocast, a norm is {norm.weight.dtype} and the map {x.dtype}"
    return None


def refuse(
    module: nn.Module, norm: nn.Module, bypassed: Iterable[nn.Module], x: Tensor, operator: str
) -> bool:
    """Whether embedding or merging takes the readable path.

    Args:
        module: It.
        norm: Its norm.
        bypassed: Layers that the lean path does not call.
        x: A tensor of the device and dtype that the norm is to take.
        operator: What the lean path calls, `add_norm` or `merge_norm`.
    """
    if _backend_refusal(module.attn_backend, x) is not None:
        return True
    reason = norm_refusal(norm) or hook_refusal((norm, *bypassed)) or _tensor_refusal([norm], x)
    if reason is None and module.attn_backend == "auto":
        width = norm.normalized_shape[0]
        channels = width // 4 if operator == "merge_norm" else width
        reason = _trial_refusal(x, (operator, channels))
    if reason is not None and not torch.compiler.is_compiling():
        log_refusal(type(module).__name__, reason)
    return reason is not None


def hook_refusal(modules: Iterable[nn.Module]) -> str | None:
    """Why modules must be called, or `None` where nobody sees whether they are."""
    if has_global_hook():
        return "a hook sees all modules"
    for module in modules:
        if has_hooks(module):
            return f"{type(module).__name__} has hooks"
    return None


@lru_cache
def log_refusal(name: str, reason: str) -> None:
    """Logs, once, that a module takes the readable path."""
    logger.debug("%s: the readable path instead of the lean one: %s", name, reason)


def linear_dtype(x: Tensor) -> torch.dtype:
    """What linear layers compute in."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def norm_dtype(x: Tensor) -> torch.dtype:
    """What norms give on a map: on a GPU float32 under autocast, which leaves the CPU's alone."""
    is_cast = x.device.type == "cuda" and torch.is_autocast_enabled("cuda")
    return torch.float32 if is_cast else x.dtype


def build_branch(value: Tensor, bias: Tensor | None, drop_path: nn.Module) -> Branch:
    """A branch with the random numbers of stochastic depth.

    In float32, mmcv's `DropPath` drops the same samples from the same seed. In narrower types it
    draws narrower numbers.
    """
    if is_idle(drop_path):
        return Branch(value, bias)
    noise = torch.rand(len(value), device=value.device)
    return Branch(value, bias, noise, 1 - drop_path.drop_prob)
