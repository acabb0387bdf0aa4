"""The choice between a module's layers, called one by one, and its fused forms.

The forms stand beside the layers, in `block.py` and `patch.py`. By Triton, a block runs three
kernels between the products of matrices and the attention: residual sum with norm twice (the first
adds what the block before left), and bias with GELU. Biases of the layers before a sum are added in
it, the next layer's dtype is written at once, and backward keeps the low-precision products and no
GELU. By oneDNN, in inference on a CPU, linear layers take GELU and residual along.

Where layers must be called one by one (hooks, LoRA, pruning, dropout, another activation or norm),
they are, and the reason is logged at debug level. A module chooses once and keeps the choice until
something that decides changes.
"""

from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from swin_mm.models.layers.hooks import has_hooks, is_identity
from swin_mm.ops.dispatch import AttnBackend, FusedForm, choose_fused, log_choice
from swin_mm.ops.reference import Branch, Norm
from swin_mm.ops.setting import Setting, setting_of


class PendingResidual(NamedTuple):
    """A map on its way from block to block, whose last sum may still be missing."""

    x: Tensor  # (B, H, W, C)
    branch: Branch | None = None  # what is still to be added to x
    low_precision: Tensor | None = None  # x as linear layers want it, where a kernel wrote it

    def materialize(self) -> Tensor:
        """The map with everything added, `(B, H, W, C)`."""
        if self.branch is None:
            return self.x
        return kernels().add_norm(self.x, self.branch, None, self.x.dtype)[0]

    def normalize(self, norm: nn.Module) -> tuple[Tensor, Tensor]:
        """The map with everything added, and that map after a norm."""
        if self.branch is None or why_not_norm(norm) or has_hooks(norm):
            x = self.materialize()
            return x, norm(x)

        dtype = setting_of(self.x, needs_grad=False).norm_dtype
        return kernels().add_norm(self.x, self.branch, norm_parameters(norm), dtype)


# By implementation: from a module and its input to its output.
FusedForms = dict[AttnBackend, Callable[..., Any]]


class FusedModule(nn.Module):
    """A module that may be computed without calling its layers."""

    fused_forms: ClassVar[FusedForms] = {}

    def bypassed_modules(self) -> tuple[nn.Module, ...]:
        """Layers that the fused forms do not call."""
        raise NotImplementedError

    def describe_fused(self) -> FusedForm:
        """What decides whether a fused form can run, beside the setting."""
        raise NotImplementedError


def choose(module: FusedModule, x: Tensor, backend: AttnBackend) -> AttnBackend | None:
    """Which fused form of a module runs on a map; `None` for its layers one by one.

    What may change about the bypassed modules is looked at in every call, in one loop without
    calls.

    Returns:
        A key of `fused_forms`.
    """
    if not module.fused_forms:
        return None
    setting = setting_of(x, torch.is_grad_enabled())
    if torch.compiler.is_compiling():
        return _choose(module, setting, backend)[0]
    has_global_hook = bool(nn.modules.module._has_any_global_hook())
    found: list[Any] = [backend, setting, has_global_hook, type(module)]
    for layer in module.bypassed_modules():
        state = layer.__dict__
        is_hooked = (
            state["_forward_hooks"]
            or state["_forward_pre_hooks"]
            or state["_backward_hooks"]
            or state["_backward_pre_hooks"]
            or "forward" in state
        )
        found += type(layer), bool(is_hooked), state["training"]
        found += state.get("p"), state.get("drop_prob"), state.get("approximate")
        for parameter in state["_parameters"].values():
            found.append(None if parameter is None else parameter.dtype)
    kept = module.__dict__.get("_fused_choice")
    if kept is None or kept[0] != found:
        name, reason = _choose(module, setting, backend)
        log_choice(type(module).__name__, name or "layer by layer", reason)
        kept = module.__dict__["_fused_choice"] = found, name
    return kept[1]


def _choose(
    module: FusedModule, setting: Setting, backend: AttnBackend
) -> tuple[AttnBackend | None, str]:
    form = module.describe_fused()
    norms = [m for m in module.bypassed_modules() if isinstance(m, nn.LayerNorm)]
    reason = form.reason or _why_not_modules(module) or _why_not_dtypes(norms, setting)
    return choose_fused(setting, form._replace(reason=reason), tuple(module.fused_forms), backend)


def _why_not_modules(module: FusedModule) -> str | None:
    # FSDP2 gives a module a class made of its own, whose place in that one is this.
    kind = type(module).__mro__[getattr(module, "_orig_cls_mro_index", 0)]
    if "fused_forms" not in vars(kind):  # its `forward` may be another too
        return f"{kind.__name__} has no fused form"
    if nn.modules.module._has_any_global_hook():
        return "a hook sees all modules"
    for layer in module.bypassed_modules():
        if has_hooks(layer):
            return f"{type(layer).__name__} has hooks"
    return None


def _why_not_dtypes(norms: Iterable[nn.LayerNorm], setting: Setting) -> str | None:
    for norm in norms:
        dtype = norm.weight.dtype
        if dtype == torch.float64 and setting.dtype != dtype:
            return f"a norm is {dtype} and the map {setting.dtype}"
        if dtype != setting.dtype and setting.autocast_dtype is None:
            return f"without autocast, a norm is {dtype} and the map {setting.dtype}"
    return None


def why_not_norm(norm: nn.Module) -> str | None:
    """Why no kernel computes a norm; `None` where one does."""
    if type(norm) is not nn.LayerNorm or norm.bias is None or len(norm.normalized_shape) != 1:
        return f"a norm is {norm}"
    return None


def kernels() -> ModuleType:
    """Operators of the Triton kernels."""
    from swin_mm.ops.triton import operators  # imports Triton

    return operators


def norm_parameters(norm: nn.Module) -> Norm:
    """Those of a norm that kernels compute; see `why_not_norm`."""
    assert isinstance(norm, nn.LayerNorm)
    return Norm(norm.weight, norm.bias, norm.eps)


def build_branch(value: Tensor, bias: Tensor | None, drop_path: Any) -> Branch:
    """A branch with the random numbers of stochastic depth.

    In float32, mmcv's `DropPath` drops the same samples from the same seed. In lower precision it
    draws other numbers.
    """
    if is_identity(drop_path):
        return Branch(value, bias)
    noise = torch.rand(value.shape[0], device=value.device)
    return Branch(value, bias, noise, 1 - drop_path.drop_prob)
