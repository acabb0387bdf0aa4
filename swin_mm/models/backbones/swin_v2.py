"""Swin Transformer V2 as a backbone for dense prediction."""

from collections.abc import Sequence

from torch import nn

from swin_mm.models.backbones.arguments import resolve_arch, resolve_init_cfg, to_pair, to_pairs
from swin_mm.models.backbones.base import SwinBackbone
from swin_mm.models.layers import CosineWindowAttention, PatchMergingV2, SwinBlockV2
from swin_mm.ops.context import ContextScale
from swin_mm.ops.dispatch import AttnBackend, resolve_backend
from swin_mm.registry import MODELS


@MODELS.register_module()
class SwinTransformerV2(SwinBackbone):
    """Swin Transformer V2 with a feature map from each requested stage.

    Arguments not listed mean what they mean to `SwinTransformer`.

    Args:
        window_size: Side, or `(Wh, Ww)`, of a window in tokens; or one of these for each stage,
            such as `(16, 16, 16, 8)` for weights trained on images of 256 pixels.
        qkv_bias: Whether the projections to query and value have a bias; the key has none.
        pretrained_window_sizes: Windows that the weights were trained with, one for each stage,
            where they differ from `window_size`; 0 or `None` where they do not.
        extra_norm_every_n_blocks: Blocks of a stage from one additional norm to the next, which
            the largest models have; 0 for none.
        arch: `tiny`, `small`, `base` or `large`: sets `embed_dims`, `depths`, `num_heads` where
            they are not given. Tiny is the default.

    Raises:
        ValueError: When arguments disagree.

    Source:
        Liu et al., Swin Transformer V2: Scaling Up Capacity and Resolution, 2022,
        https://arxiv.org/abs/2111.09883. Differences from Microsoft's, timm's and torchvision's
        classes, all for maps of any size, as in mmdet's V1: a map is padded to whole windows, and
        padded tokens are live keys and values; windows are shifted, and keep their size, also
        where the map is no larger than one, where timm and torchvision do not shift and
        Microsoft's and timm's windows shrink; timm shifts before it pads. Where every map is
        larger than its window, and for timm divisible by it, the numbers are the same.

    Examples:
        >>> import torch
        >>> backbone = SwinTransformerV2(arch='tiny', window_size=8, out_indices=(1, 3))
        >>> [tuple(map.shape) for map in backbone(torch.zeros(1, 3, 97, 141))]
        [(1, 192, 13, 18), (1, 768, 4, 5)]
    """

    def __init__(
        self,
        pretrain_img_size: int | Sequence[int] = 256,
        in_channels: int = 3,
        embed_dims: int | None = None,
        patch_size: int | Sequence[int] = 4,
        window_size: int | Sequence[int | Sequence[int]] = 8,
        mlp_ratio: float = 4,
        depths: Sequence[int] | None = None,
        num_heads: Sequence[int] | None = None,
        strides: Sequence[int] = (4, 2, 2, 2),
        out_indices: Sequence[int] = (0, 1, 2, 3),
        qkv_bias: bool = True,
        patch_norm: bool = True,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        use_abs_pos_embed: bool = False,
        act_cfg: dict | None = None,
        norm_cfg: dict | None = None,
        with_cp: bool = False,
        frozen_stages: int = -1,
        init_cfg: dict | None = None,
        *,
        pretrained_window_sizes: Sequence[int | Sequence[int]] | None = None,
        extra_norm_every_n_blocks: int = 0,
        arch: str | None = None,
        attn_backend: AttnBackend = "auto",
        context_scales: Sequence[ContextScale] = (),
        lora: dict | None = None,
    ) -> None:
        attn_backend = resolve_backend(attn_backend)
        variant = resolve_arch(arch, embed_dims, depths, num_heads)
        windows = to_pairs("window_size", window_size, len(variant.depths))
        pretrained_windows = _resolve_pretrained_windows(
            pretrained_window_sizes, len(variant.depths)
        )
        if extra_norm_every_n_blocks < 0:
            raise ValueError(
                f"extra_norm_every_n_blocks must be 0 or more, got {extra_norm_every_n_blocks}"
            )
        act_cfg = act_cfg or dict(type="GELU")
        norm_cfg = norm_cfg or dict(type="LN")

        def build_block(stage: int, index: int, drop_path_rate: float) -> nn.Module:
            attn = CosineWindowAttention(
                variant.embed_dims * 2**stage,
                variant.num_heads[stage],
                windows[stage],
                is_shifted=index % 2 == 1,
                qkv_bias=qkv_bias,
                pretrained_window_size=pretrained_windows[stage],
                attn_drop_rate=attn_drop_rate,
                proj_drop_rate=drop_rate,
                attn_backend=attn_backend,
                context_scales=context_scales,
            )
            every = extra_norm_every_n_blocks
            return SwinBlockV2(
                attn,
                mlp_ratio,
                drop_rate,
                drop_path_rate,
                act_cfg,
                norm_cfg,
                has_extra_norm=every > 0 and (index + 1) % every == 0,
            )

        def build_merging(embed_dims: int, stride: int) -> nn.Module:
            return PatchMergingV2(embed_dims, stride, norm_cfg if patch_norm else None)

        super().__init__(
            variant,
            build_block,
            build_merging,
            pretrain_img_size=pretrain_img_size,
            in_channels=in_channels,
            patch_size=patch_size,
            strides=strides,
            out_indices=out_indices,
            patch_norm=patch_norm,
            drop_rate=drop_rate,
            drop_path_rate=drop_path_rate,
            use_abs_pos_embed=use_abs_pos_embed,
            norm_cfg=norm_cfg,
            with_cp=with_cp,
            frozen_stages=frozen_stages,
            init_cfg=resolve_init_cfg(init_cfg, pretrained=None),
            attn_backend=attn_backend,
            lora=lora,
        )


def _resolve_pretrained_windows(
    sizes: Sequence[int | Sequence[int]] | None, num_stages: int
) -> list[tuple[int, int]]:
    if sizes is None:
        return [(0, 0)] * num_stages
    if isinstance(sizes, int) or len(sizes) != num_stages:
        raise ValueError(
            f"pretrained_window_sizes must name all {num_stages} stages, 0 for those whose window "
            f"is as in training, got {sizes!r}"
        )
    return [to_pair(f"pretrained_window_sizes[{i}]", s, minimum=0) for i, s in enumerate(sizes)]
