"""What a model attends to at one pixel of an image, block by block, and its feature maps."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from swin_mm.configs import ConfigError
from swin_mm.inference.model import Model
from swin_mm.models.backbones.base import SwinBackbone
from swin_mm.models.layers.attention import WindowAttentionBase
from swin_mm.ops.context import pool_values
from swin_mm.ops.window import padded_size, shift_mask, window_layout, window_partition


@dataclass(frozen=True)
class BlockAttention:
    """What the token at the pixel attends to in one block.

    Attributes:
        stage, block: Counted from 0.
        is_shifted: Whether windows are shifted.
        weights: `(nH, H, W)`, the attention weights over the tokens of the map; zero outside of
            the token's window.
        padding: `(nH,)`, the weights on padded tokens; with `weights` they sum to one.
        context: By scale, the norm of what it adds to the output of the token, in units of the norm
            of what attention gives; empty for plain attention.
    """

    stage: int
    block: int
    is_shifted: bool
    weights: np.ndarray
    padding: np.ndarray
    context: dict[str, float]


@dataclass(frozen=True)
class Explanation:
    """What a backbone computes around one pixel.

    Attributes:
        image: The picture, `(H, W, 3)`, uint8, RGB.
        pixel: `(x, y)` in the picture, from its left and its top.
        token_sizes: By stage, the `(height, width)` of a token in pixels of the picture.
        blocks: All blocks in order.
        maps: By stage, the feature map that the backbone returns, `(C, H_i, W_i)`.
    """

    image: np.ndarray
    pixel: tuple[int, int]
    token_sizes: list[tuple[float, float]]
    blocks: list[BlockAttention] = field(default_factory=list)
    maps: dict[int, np.ndarray] = field(default_factory=dict)


def explain_pixel(model: Model, image: Any, pixel: tuple[int, int]) -> Explanation:
    """Runs the backbone of a model on an image, and keeps the attention of one pixel's token.

    Args:
        model: A detector or segmentor with a backbone of swin_mm.
        image: One image: a path, an address, an array or a tensor; see `Model.predict`.
        pixel: `(x, y)` in the image, from its left and its top.

    Raises:
        ConfigError: The backbone is another, or the pixel is outside of the image.
    """
    backbone = getattr(model.module, "backbone", None)
    if not isinstance(backbone, SwinBackbone):
        raise ConfigError(
            "only backbones of swin_mm can be explained, such as type='swin_mm.SwinTransformer'; "
            f"this model's is {type(backbone).__name__}"
        )
    picture, batch = model.prepare(image)
    rows, columns = picture.shape[:2]
    if not (0 <= pixel[0] < columns and 0 <= pixel[1] < rows):
        raise ConfigError(
            f"pixel {pixel[0]} {pixel[1]} is outside of the image, which has {columns} columns and "
            f"{rows} rows, counted from 0"
        )
    resized = batch["data_samples"][0].metainfo["img_shape"][:2]
    factors = resized[0] / rows, resized[1] / columns
    token_sizes = []
    for info in backbone.feature_info:
        stride = info["reduction"]
        strides = (stride, stride) if isinstance(stride, int) else stride
        token_sizes.append((strides[0] / factors[0], strides[1] / factors[1]))
    found = Explanation(picture, pixel, token_sizes)
    handles = []
    for i, stage in enumerate(backbone.layers):
        height, width = token_sizes[i]
        token = int((pixel[1] + 0.5) // height), int((pixel[0] + 0.5) // width)
        blocks: Any = stage.blocks
        for j, block in enumerate(blocks):
            hook = partial(_record, found, i, j, token)
            handles.append(block.attn.register_forward_pre_hook(hook))
    try:
        with torch.no_grad():
            maps = backbone(batch["inputs"])
    finally:
        for handle in handles:
            handle.remove()
    for index, one in zip(backbone.out_indices, maps, strict=True):
        found.maps[index] = one[0].float().cpu().numpy()
    return found


def _record(
    found: Explanation,
    stage: int,
    block: int,
    token: tuple[int, int],
    attn: nn.Module,
    inputs: tuple[Tensor],
) -> None:
    """Keeps the attention of a token, before the block computes that of all."""
    assert isinstance(attn, WindowAttentionBase)
    kept = {}

    def attention(
        qkv: Tensor, rel_pos_bias: Tensor, pad_token: Tensor | None, **windows: Any
    ) -> Tensor:
        kept["all"] = _attend_from(token, attn, qkv, rel_pos_bias, pad_token)
        return qkv[..., : attn.embed_dims]

    attn.attend(inputs[0], attention)
    found.blocks.append(BlockAttention(stage, block, any(attn.shift_size), *kept["all"]))


def _attend_from(
    token: tuple[int, int],
    attn: WindowAttentionBase,
    qkv: Tensor,
    rel_pos_bias: Tensor,
    pad_token: Tensor | None,
) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """The weights of one token over the map and on padding, and the shares of the context."""
    size, num_heads = (qkv.shape[1], qkv.shape[2]), attn.num_heads
    windows = attn.window_size, attn.shift_size
    layout = window_layout(size, *windows, qkv.device)
    place = int(layout.inverse_index[token[0] * size[1] + token[1]])
    window, slot = divmod(place, layout.num_tokens)
    parts = window_partition(qkv[:1], pad_token, layout).float()  # (nW, N, 3*C)
    q, k, v = parts.unflatten(-1, (3, num_heads, -1)).permute(2, 0, 3, 1, 4)  # (nW, nH, N, D)
    scores = attn.scale * torch.einsum("hd,hnd->hn", q[window, :, slot], k[window])
    scores = scores + rel_pos_bias[:, slot]
    if any(attn.shift_size):
        mask = shift_mask(padded_size(size, attn.window_size), *windows, qkv.device)
        scores = scores + mask[window, slot]
    weights = scores.softmax(-1)  # (nH, N)
    context: dict[str, float] = {}
    if attn.context_mix is not None:
        out = torch.einsum("hn,hnd->hd", weights, v[window])
        means = pool_values(v, attn.context_scales, size, *windows)[window]  # (nH, S, D)
        mix = attn.context_mix.float().unflatten(-1, (len(attn.context_scales), -1))
        added = torch.einsum("hse,hdse->shd", means, mix).flatten(1).norm(dim=1) / out.norm()
        context = dict(zip(map(str, attn.context_scales), added.tolist(), strict=True))
    where = layout.gather_index.unflatten(0, (-1, layout.num_tokens))[window]
    is_token = where < size[0] * size[1]
    heat = weights.new_zeros(num_heads, size[0] * size[1])
    heat[:, where[is_token]] = weights[:, is_token]
    padding = weights[:, ~is_token].sum(-1)
    return heat.unflatten(1, size).cpu().numpy(), padding.cpu().numpy(), context
