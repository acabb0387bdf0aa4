"""Swin Transformer V1 as a backbone for dense prediction."""

from collections.abc import Sequence

from torch import nn

from swin_mm.models.backbones.arguments import resolve_arch, resolve_init_cfg, to_pairs
from swin_mm.models.backbones.base import SwinBackbone
from swin_mm.models.layers import PatchMerging, SwinBlock, WindowAttention
from swin_mm.ops.context import ContextScale
from swin_mm.ops.dispatch import AttnBackend, resolve_backend
from swin_mm.registry import MODELS


@MODELS.register_module()
class SwinTransformer(SwinBackbone):
    """Swin Transformer with a feature map from each requested stage.

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
        attn_backend: `auto`, `sdpa`, `triton` or `reference`; see
            `swin_mm.ops.window_attention`.
            `triton` runs the other steps of a block in Triton too, where it can; see
            `swin_mm.models.layers.fused`. `auto` uses what passes a self-test on the GPU at hand.
        context_scales: Surroundings whose mean values every window mixes into its attention:
            `window`, an int `k` for `k x k` windows, `global`, such as `('window', 'global')`; see
            `swin_mm.ops.context`. Untrained it changes nothing, so that weights without it load
            and give the same maps. Empty for plain attention.
        lora: Train low-rank updates of the linear layers and nothing else of the backbone, such as
            `dict(r=8)`; the arguments of `swin_mm.models.lora.add_lora`.

    Raises:
        ValueError: When arguments disagree.

    Source:
        Liu et al., Swin Transformer: Hierarchical Vision Transformer using Shifted Windows, 2021,
        https://arxiv.org/abs/2103.14030. Differences from mmdet's class: position embeddings of
        another size are resized, not rejected; unused stages are not built; `train` and
        `eval` return the module.

    Examples:
        >>> import torch
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
        context_scales: Sequence[ContextScale] = (),
        lora: dict | None = None,
    ) -> None:
        attn_backend = resolve_backend(attn_backend)
        variant = resolve_arch(arch, embed_dims, depths, num_heads)
        windows = to_pairs("window_size", window_size, len(variant.depths))
        act_cfg = act_cfg or dict(type="GELU")
        norm_cfg = norm_cfg or dict(type="LN")

        def build_block(stage: int, index: int, drop_path_rate: float) -> nn.Module:
            attn = WindowAttention(
                variant.embed_dims * 2**stage,
                variant.num_heads[stage],
                windows[stage],
                is_shifted=index % 2 == 1,
                qkv_bias=qkv_bias,
                qk_scale=qk_scale,
                attn_drop_rate=attn_drop_rate,
                proj_drop_rate=drop_rate,
                attn_backend=attn_backend,
                context_scales=context_scales,
            )
            return SwinBlock(attn, mlp_ratio, drop_rate, drop_path_rate, act_cfg, norm_cfg)

        def build_merging(embed_dims: int, stride: int) -> nn.Module:
            return PatchMerging(embed_dims, stride, norm_cfg if patch_norm else None, attn_backend)

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
            init_cfg=resolve_init_cfg(init_cfg, pretrained),
            attn_backend=attn_backend,
            lora=lora,
        )
