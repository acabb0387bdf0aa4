"""Swin Transformer V1 as a backbone for dense prediction."""

import itertools
import warnings
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.init import trunc_normal_
from torch.utils.checkpoint import checkpoint

from swin_mm.checkpoint import register_load_hook
from swin_mm.models.layers import PatchEmbed, PatchMerging, SwinBlock, WindowAttention
from swin_mm.ops.dispatch import AttnBackend, check_backend
from swin_mm.registry import MODELS


class Arch(NamedTuple):
    """Widths and depths of a published variant."""

    embed_dims: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]


# Source: Liu et al., Swin Transformer, 2021, section 3.3.
ARCHS = {
    "tiny": Arch(96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "small": Arch(96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "base": Arch(128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "large": Arch(192, (2, 2, 18, 2), (6, 12, 24, 48)),
}


class SwinStage(nn.Module):
    """Blocks of one resolution, every second one shifted, and the merging after them.

    Args:
        blocks: The blocks, in order.
        downsample: Patch merging to the next stage; `None` where no later stage is used.
        with_cp: Whether to recompute blocks in backward instead of keeping their activations.
    """

    def __init__(
        self, blocks: Sequence[nn.Module], downsample: PatchMerging | None, with_cp: bool
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample
        self.with_cp = with_cp

    def forward(self, x: Tensor) -> Tensor:
        """`(B, H, W, C)` to `(B, H, W, C)`; the merging is the caller's to call."""
        for block in self.blocks:
            if self.with_cp and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return x


@MODELS.register_module()
class SwinTransformer(BaseModule):
    """Swin Transformer with a feature map from each stage asked for.

    Takes every argument of the class of the same name in mmdet 3.3.0 and mmseg 1.2.2, with the
    same meaning, so that changing `type` in a config is enough.

    Args:
        pretrain_img_size: Side, or `(h, w)`, of the images that `absolute_pos_embed` was trained
            on, in pixels.
        in_channels: Channels of the image.
        embed_dims: Channels of the first stage; each later one doubles them.
        patch_size: Side, or `(h, w)`, of a patch in pixels.
        window_size: Side, or `(Wh, Ww)`, of a window in tokens.
        mlp_ratio: Width of the MLPs, in units of their stage's channels.
        depths: Blocks of each stage.
        num_heads: Attention heads of each stage.
        strides: Stride of the patch embedding, in pixels, then of each merging, in tokens.
        out_indices: Stages whose maps are returned, in this order. Stages after the last of them
            are not built.
        qkv_bias: Whether the projections to query, key and value have a bias.
        qk_scale: Factor on the queries; `None` is `head_dim ** -0.5`.
        patch_norm: Whether patch embedding and merging have a norm.
        drop_rate: Dropout of embeddings, attention outputs and MLPs.
        attn_drop_rate: Dropout of attention weights.
        drop_path_rate: Stochastic depth of the last block; it grows linearly from 0 at the first.
        use_abs_pos_embed: Whether to add an absolute position embedding, resized to the map.
        act_cfg: Activation of the MLPs, as mmcv builds it.
        norm_cfg: Norms, as mmcv builds them.
        with_cp: Whether to recompute blocks in backward, to save memory.
        pretrained: Checkpoint path or URL; the older spelling of `init_cfg`.
        convert_weights: Accepted for mmdet's configs; any known layout is recognised by itself.
        frozen_stages: -1 freezes nothing, 0 the patch embedding, `i` also the first `i` stages.
        init_cfg: mmengine's initialisation, e.g. `dict(type='Pretrained', checkpoint=...)`.
        arch: `tiny`, `small`, `base` or `large`: sets `embed_dims`, `depths`, `num_heads` where
            they are not given. Tiny is the default.
        attn_backend: `auto`, `reference` or `sdpa`; see `swin_mm.ops.window_attention`.

    Raises:
        ValueError: When arguments disagree.

    Source:
        Liu et al., Swin Transformer: Hierarchical Vision Transformer using Shifted Windows, 2021,
        https://arxiv.org/abs/2103.14030. Differences from mmdet's class: position embeddings of
        another size are resized instead of refused; unused stages are not built; `train` and
        `eval` return the module.

    Example:
        >>> backbone = SwinTransformer(arch='tiny', out_indices=(1, 3))
        >>> [tuple(map.shape) for map in backbone(torch.zeros(1, 3, 97, 141))]
        [(1, 192, 13, 18), (1, 768, 4, 5)]
    """

    def __init__(
        self,
        pretrain_img_size: int | Sequence[int] = 224,
        in_channels: int = 3,
        embed_dims: int | None = None,
        patch_size: int | Sequence[int] = 4,
        window_size: int | Sequence[int] = 7,
        mlp_ratio: float = 4,
        depths: Sequence[int] | None = None,
        num_heads: Sequence[int] | None = None,
        strides: Sequence[int] = (4, 2, 2, 2),
        out_indices: Sequence[int] = (0, 1, 2, 3),
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        patch_norm: bool = True,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        use_abs_pos_embed: bool = False,
        act_cfg: dict | None = None,
        norm_cfg: dict | None = None,
        with_cp: bool = False,
        pretrained: str | None = None,
        convert_weights: bool = False,
        frozen_stages: int = -1,
        init_cfg: dict | None = None,
        *,
        arch: str | None = None,
        attn_backend: AttnBackend = "auto",
    ) -> None:
        super().__init__(init_cfg=_resolve_init_cfg(init_cfg, pretrained))
        variant = _resolve_arch(arch, embed_dims, depths, num_heads)
        patch_size = _to_pair("patch_size", patch_size)
        num_stages = len(variant.depths)
        _check_stages(strides, patch_size, out_indices, frozen_stages, num_stages)
        check_backend(attn_backend)
        norm_cfg = norm_cfg or dict(type="LN")
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.num_features = [variant.embed_dims * 2**i for i in range(num_stages)]

        self.patch_embed = PatchEmbed(
            in_channels, variant.embed_dims, patch_size, norm_cfg if patch_norm else None
        )
        self.absolute_pos_embed = None
        if use_abs_pos_embed:
            image_size = _to_pair("pretrain_img_size", pretrain_img_size)
            self.pos_embed_size = tuple(s // p for s, p in zip(image_size, patch_size, strict=True))
            tokens = self.pos_embed_size[0] * self.pos_embed_size[1]
            self.absolute_pos_embed = nn.Parameter(torch.zeros(1, tokens, variant.embed_dims))
        self.drop_after_pos = nn.Dropout(drop_rate)

        block = partial(
            SwinBlock,
            window_size=_to_pair("window_size", window_size),
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            qk_scale=qk_scale,
            drop_rate=drop_rate,
            attn_drop_rate=attn_drop_rate,
            act_cfg=act_cfg or dict(type="GELU"),
            norm_cfg=norm_cfg,
            attn_backend=attn_backend,
        )
        last_block = max(sum(variant.depths) - 1, 1)
        drop_path_rates = (drop_path_rate * i / last_block for i in itertools.count())
        self.layers = nn.ModuleList()
        last_stage = max(self.out_indices)
        for i in range(last_stage + 1):
            dims, heads, depth = self.num_features[i], variant.num_heads[i], variant.depths[i]
            blocks = [
                block(dims, heads, shifted=j % 2 == 1, drop_path_rate=next(drop_path_rates))
                for j in range(depth)
            ]
            downsample = None
            if i < last_stage:
                downsample = PatchMerging(dims, strides[i + 1], norm_cfg if patch_norm else None)
            self.layers.append(SwinStage(blocks, downsample, with_cp))
        for i in self.out_indices:
            self.add_module(f"norm{i}", build_norm_layer(norm_cfg, self.num_features[i])[1])

        self.reset_parameters()
        self._freeze_stages()
        register_load_hook(self)

    def reset_parameters(self) -> None:
        """Draws linear weights and bias tables from a normal of 0.02, cut at two units.

        Biases are 0 and norms the identity, as in microsoft/Swin-Transformer; the patch
        projection keeps PyTorch's initialisation.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, WindowAttention):
                trunc_normal_(module.relative_position_bias_table, std=0.02)
        if self.absolute_pos_embed is not None:
            trunc_normal_(self.absolute_pos_embed, std=0.02)

    def train(self, mode: bool = True) -> "SwinTransformer":
        """Switches the mode, except for frozen stages, which stay in `eval`; returns itself."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    def _frozen_modules(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        modules = [self.patch_embed, self.drop_after_pos, *self.layers[: self.frozen_stages]]
        modules += [getattr(self, f"norm{i}") for i in self.out_indices if i < self.frozen_stages]
        return modules

    def _freeze_stages(self) -> None:
        if self.frozen_stages >= 0 and self.absolute_pos_embed is not None:
            self.absolute_pos_embed.requires_grad_(False)
        for module in self._frozen_modules():
            module.requires_grad_(False).eval()

    def _add_pos_embed(self, x: Tensor) -> Tensor:
        embed = self.absolute_pos_embed.unflatten(1, self.pos_embed_size)  # (1, Ph, Pw, C)
        if embed.shape[1:3] != x.shape[1:3]:
            # As the official detection code does for maps of another size.
            embed = F.interpolate(embed.permute(0, 3, 1, 2), x.shape[1:3], mode="bicubic")
            embed = embed.permute(0, 2, 3, 1)
        return x + embed

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Computes the feature maps of a batch of images.

        Args:
            x: `(B, in_channels, H, W)`, any `H` and `W` in pixels.

        Returns:
            For each `i` of `out_indices`, `(B, embed_dims * 2**i, H_i, W_i)` in channels-last
            memory.
        """
        x = self.patch_embed(x)  # (B, H, W, C)
        if self.absolute_pos_embed is not None:
            x = self._add_pos_embed(x)
        x = self.drop_after_pos(x)
        maps = {}
        for i, stage in enumerate(self.layers):
            x = stage(x)
            if i in self.out_indices:
                maps[i] = getattr(self, f"norm{i}")(x).permute(0, 3, 1, 2)
            if stage.downsample is not None:
                x = stage.downsample(x)
        return tuple(maps[i] for i in self.out_indices)


def _resolve_init_cfg(init_cfg: dict | None, pretrained: str | None) -> dict | None:
    if pretrained is not None:
        if init_cfg:
            raise ValueError(f"give init_cfg or pretrained, not both: {init_cfg=}, {pretrained=}")
        if not isinstance(pretrained, str):
            raise TypeError(f"pretrained must be a path or URL, got {pretrained!r}")
        warnings.warn(
            "pretrained= is deprecated: use "
            f"init_cfg=dict(type='Pretrained', checkpoint={pretrained!r})",
            DeprecationWarning,
            stacklevel=3,
        )
        return dict(type="Pretrained", checkpoint=pretrained)
    if isinstance(init_cfg, dict) and "checkpoint" in init_cfg:
        return {"type": "Pretrained", **init_cfg}  # mmdet's class asks for no type
    return init_cfg


def _resolve_arch(arch, embed_dims, depths, num_heads) -> Arch:
    if arch is not None and arch not in ARCHS:
        raise ValueError(f"arch must be one of {tuple(ARCHS)}, got {arch!r}")
    default = ARCHS[arch or "tiny"]
    variant = Arch(
        default.embed_dims if embed_dims is None else embed_dims,
        default.depths if depths is None else tuple(depths),
        default.num_heads if num_heads is None else tuple(num_heads),
    )
    if len(variant.depths) != len(variant.num_heads):
        raise ValueError(
            "depths and num_heads must name the same number of stages, got "
            f"depths={variant.depths}, num_heads={variant.num_heads}"
        )
    return variant


def _to_pair(name: str, value: int | Sequence[int]) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    pair = pair * 2 if len(pair) == 1 else pair
    if len(pair) != 2 or not all(isinstance(side, int) and side > 0 for side in pair):
        raise ValueError(f"{name} must be a positive int or a pair (h, w) of them, got {value!r}")
    return pair


def _check_stages(strides, patch_size, out_indices, frozen_stages, num_stages) -> None:
    if len(strides) < num_stages:
        raise ValueError(f"strides must name all {num_stages} stages, got {tuple(strides)}")
    if _to_pair("strides[0]", strides[0]) != patch_size:
        raise ValueError(
            f"patches do not overlap, so strides[0] must equal patch_size, got {strides[0]} and "
            f"{patch_size}"
        )
    if not out_indices or not all(0 <= i < num_stages for i in out_indices):
        raise ValueError(
            f"out_indices must name stages in [0, {num_stages}), got {tuple(out_indices)}"
        )
    if not -1 <= frozen_stages <= num_stages:
        raise ValueError(f"frozen_stages must be in [-1, {num_stages}], got {frozen_stages}")
