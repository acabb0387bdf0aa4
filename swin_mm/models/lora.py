"""Low-rank adaptation (LoRA) of a backbone's linear layers, by the package peft."""

from importlib.util import find_spec
from typing import Any, cast

import torch
from torch import nn

from swin_mm.checkpoint.lora import SCALE

# All linear layers of the blocks; not of the position bias, nor of the merging between stages.
TARGETS = r".*\.(attn\.(qkv|proj)|mlp\.(fc1|fc2))"
BASE = ".base_layer."  # what peft puts before the names of a layer that it wraps


def add_lora(
    backbone: nn.Module,
    r: int,
    alpha: float | None = None,
    dropout: float = 0.0,
    target_modules: str = TARGETS,
) -> None:
    """Freezes a backbone but for low-rank updates of its linear layers.

    Trained are, of a layer with weight W, the factors of an update `alpha / r * B A`. B begins at
    zero, so that the backbone begins unchanged. Biases, norms, position biases, patch embedding
    and merging stay as they are. What is outside of the backbone is not touched.

    The state dict names weights as without LoRA, so that weights of any known layout load. A
    checkpoint with updates loads into a backbone without LoRA too, by merging; see
    `swin_mm.checkpoint.lora`.

    Args:
        backbone: A `swin_mm.SwinTransformer` or `SwinTransformerV2`.
        r: Rank of the updates.
        alpha: Their scale, times `r`; `None` for `r`.
        dropout: Dropout of the updates' inputs.
        target_modules: Regular expression of the names of layers.

    Raises:
        ValueError: `r` is not positive, no layer has such a name, or peft is not installed.

    Source:
        Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, 2021,
        https://arxiv.org/abs/2106.09685
    """
    if r < 1:
        raise ValueError(f"lora: r must be 1 or more, got {r}")
    if find_spec("peft") is None:
        raise ValueError("lora needs the package peft: pip install 'swin-mm[lora]'")
    from peft import LoraConfig, inject_adapter_in_model

    alpha = r if alpha is None else alpha
    # Its annotation says int, and it takes any number.
    config = LoraConfig(
        r=r, lora_alpha=cast(int, alpha), lora_dropout=dropout, target_modules=target_modules
    )
    inject_adapter_in_model(config, backbone)
    # In the state dict, since merging a file needs it.
    backbone.register_buffer(SCALE, torch.tensor(alpha / r))
    backbone.register_state_dict_post_hook(_hide_wrapping)
    backbone.register_load_state_dict_pre_hook(_wrap_names)


def reset_lora(backbone: nn.Module) -> None:
    """Makes the updates of a backbone, where it has any, as `add_lora` makes them."""
    for module in backbone.modules():
        if hasattr(module, "reset_lora_parameters"):
            layer: Any = module  # peft's
            (name,) = layer.scaling
            layer.reset_lora_parameters(name, True)
            backbone.get_buffer(SCALE).fill_(layer.scaling[name])


def _hide_wrapping(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    """Gives weights the names they have without LoRA."""
    for key in [key for key in state if key.startswith(prefix)]:
        # All are put back, to keep their order.
        state[key.replace(BASE, ".")] = state.pop(key)


def _wrap_names(module: nn.Module, state: dict[str, Any], prefix: str, *extra: Any) -> None:
    """Undoes `_hide_wrapping` when weights are loaded."""
    for name, _ in [*module.named_parameters(), *module.named_buffers()]:
        plain = prefix + name.replace(BASE, ".")
        if BASE in name and plain in state:
            state[prefix + name] = state.pop(plain)
