"""Replaces layers of a model by ones that an exporter can record for images of any size."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from swin_mm.export import operators
from swin_mm.models.layers.attention import WindowAttentionBase
from swin_mm.ops.window import relative_position_index


def prepare(model: Any) -> None:
    """Makes a model ready to be recorded, in place; its numbers stay within rounding.

    Attention becomes one operator with its position bias as a constant, low-rank updates are merged
    into their layers, and averages over regions are products of matrices.
    """
    for name, module in list(model.named_modules()):
        if hasattr(module, "get_base_layer"):  # of peft
            module.merge()
            _replace(model, name, module.get_base_layer())
        elif isinstance(module, nn.AdaptiveAvgPool2d):
            _replace(model, name, AveragePool(module.output_size))
    for module in model.modules():
        if isinstance(module, WindowAttentionBase):
            _simplify(module)


def _replace(model: Any, name: str, layer: Any) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)


@torch.no_grad()
def _simplify(attention: Any) -> None:
    like = attention.proj.weight
    table = attention.project(like.new_zeros(1, *attention.window_size, attention.embed_dims))[2]
    if hasattr(attention, "bias_table"):
        attention.bias_table = lambda: table  # computed once, not by the file
    index = relative_position_index(attention.window_size, like.device)
    bias = table[index].permute(2, 0, 1).contiguous()  # (nH, N, N)
    attention.register_buffer("export_bias", bias, persistent=False)
    # An instance's own `forward` is called by blocks, whatever their fused form.
    attention.forward = partial(_attend, attention)


def _attend(attention: Any, x: Tensor) -> Tensor:
    qkv, pad_token, _ = attention.project(x)
    windows = attention.num_heads, attention.window_size, attention.shift_size
    bias, scale = attention.export_bias, attention.scale
    out = operators.window_attention(qkv, bias, pad_token, *windows, scale)
    if attention.context_scales:
        scales = [operators.CONTEXT_SCALES.get(s, s) for s in attention.context_scales]
        mix = attention.context_mix
        out = out + operators.window_context(qkv, mix, pad_token, *windows, scales)
    return attention.proj(out)


class AveragePool(nn.Module):
    """`nn.AdaptiveAvgPool2d` as products with two matrices; `(B, C, H, W)` to `(B, C, h, w)`."""

    def __init__(self, output_size: Any) -> None:
        super().__init__()
        pair = output_size if isinstance(output_size, tuple) else (output_size, output_size)
        self.output_size: tuple[int, int] = pair

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (
            _averages(size, out, x) for size, out in zip(x.shape[2:], self.output_size, strict=True)
        )
        return rows @ x @ columns.transpose(0, 1)


def _averages(size: int, out: int, like: Tensor) -> Tensor:
    """The share of each of `size` pixels in each of `out` means, `(out, size)`."""
    cell = torch.arange(out, device=like.device)[:, None]
    pixel = torch.arange(size, device=like.device)
    first, end = cell * size // out, ((cell + 1) * size + out - 1) // out
    inside = (pixel >= first) & (pixel < end)
    return inside.to(like.dtype) / (end - first).to(like.dtype)
