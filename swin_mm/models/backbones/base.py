"""What Swin V1 and V2 have in common as backbones: everything but their blocks."""

from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.init import trunc_normal_
from torch.utils.checkpoint import checkpoint

from swin_mm.checkpoint import register_load_hook
from swin_mm.models.backbones.arguments import Arch, check_stages, to_pair
from swin_mm.models.backbones.feature_info import FeatureInfo
from swin_mm.models.layers import PatchEmbed, SwinBlock
from swin_mm.models.layers.fused import PendingResidual
from swin_mm.models.layers.hooks import has_hooks
from swin_mm.models.lora import add_lora, reset_lora
from swin_mm.ops.dispatch import AttnBackend


class SwinStage(nn.Module):
    """Blocks of one resolution, and the merging to the next stage, `None` where that is not used.

    With `with_cp`, blocks are recomputed in backward instead of keeping their activations.
    """

    def __init__(
        self, blocks: Sequence[nn.Module], downsample: nn.Module | None, with_cp: bool
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample
        self.with_cp = with_cp

    def forward(self, x: Tensor) -> Tensor:
        """`(B, H, W, C)` to `(B, H, W, C)`; the merging is the caller's to call."""
        return self.advance(PendingResidual(x)).materialize()

    def advance(self, pending: PendingResidual) -> PendingResidual:
        """`forward`, where the last sum may be left to what comes next."""
        for block in self.blocks:
            if self.with_cp and torch.is_grad_enabled():
                x = checkpoint(block, pending.materialize(), use_reentrant=False)
                pending = PendingResidual(x)
            elif isinstance(block, SwinBlock):
                pending = block.advance(pending)
            else:
                pending = PendingResidual(block(pending.materialize()))
        return pending


class SwinBackbone(BaseModule):
    """Patch embedding, stages, and a norm for each requested feature map.

    Args:
        variant: Channels of the first stage, and blocks and heads of each.
        build_block: Called as `build_block(stage, index, drop_path_rate)` for each block; shifts
            those of odd index.
        build_merging: Called as `build_merging(embed_dims, stride)` with the channels before the
            merging.
        norm_cfg: Norms of the feature maps, as mmcv builds them.
        patch_norm: Whether the patch embedding has a norm.
        init_cfg: mmengine's initialisation.

    The other arguments are those of `SwinTransformer`.

    Attributes:
        feature_info: Channels and strides of the maps, as timm's models have it.
    """

    def __init__(
        self,
        variant: Arch,
        build_block: Callable[[int, int, float], nn.Module],
        build_merging: Callable[[int, int], nn.Module],
        *,
        pretrain_img_size: int | Sequence[int],
        in_channels: int,
        patch_size: int | Sequence[int],
        strides: Sequence[int],
        out_indices: Sequence[int],
        patch_norm: bool,
        drop_rate: float,
        drop_path_rate: float,
        use_abs_pos_embed: bool,
        norm_cfg: dict,
        with_cp: bool,
        frozen_stages: int,
        init_cfg: dict | None,
        attn_backend: AttnBackend,
        lora: dict | None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        patch_size = to_pair("patch_size", patch_size)
        num_stages = len(variant.depths)
        check_stages(strides, patch_size, out_indices, frozen_stages, num_stages)
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.num_features = [variant.embed_dims * 2**i for i in range(num_stages)]
        built = max(self.out_indices) + 1
        self.feature_info = FeatureInfo(
            self.num_features[:built], list(strides)[:built], self.out_indices
        )

        self.patch_embed = PatchEmbed(
            in_channels,
            variant.embed_dims,
            patch_size,
            norm_cfg if patch_norm else None,
            attn_backend,
        )
        self.absolute_pos_embed: nn.Parameter | None = None
        if use_abs_pos_embed:
            image_size = to_pair("pretrain_img_size", pretrain_img_size)
            self.pos_embed_size = tuple(s // p for s, p in zip(image_size, patch_size, strict=True))
            tokens = self.pos_embed_size[0] * self.pos_embed_size[1]
            self.absolute_pos_embed = nn.Parameter(torch.zeros(1, tokens, variant.embed_dims))
        self.drop_after_pos = nn.Dropout(drop_rate)

        # To the bit mmdet's and mmseg's, which decide with a random number who skips a branch.
        rates = torch.linspace(0, drop_path_rate, sum(variant.depths), device="cpu")
        drop_path_rates = iter(rates.tolist())
        self.layers = nn.ModuleList()
        last_stage = max(self.out_indices)
        for i in range(last_stage + 1):
            blocks = [build_block(i, j, next(drop_path_rates)) for j in range(variant.depths[i])]
            downsample = None
            if i < last_stage:
                downsample = build_merging(self.num_features[i], strides[i + 1])
            self.layers.append(SwinStage(blocks, downsample, with_cp))
        for i in self.out_indices:
            self.add_module(f"norm{i}", build_norm_layer(norm_cfg, self.num_features[i])[1])

        self._draw_weights()
        register_load_hook(self)
        if lora:
            add_lora(self, **lora)
        self._freeze_stages()

    def reset_parameters(self) -> None:
        """Initialises every parameter and buffer anew, also after `to_empty`.

        Linear weights come from a normal of 0.02, cut at two units. Biases are 0 and norms the
        identity, as in microsoft/Swin-Transformer, but for a V2 block's, which make the block the
        identity; the patch projection has PyTorch's initialisation. Updates of LoRA begin at zero.
        """
        # Blocks come before their norms, which they zero: inner modules first.
        for module in reversed(list(self.modules())):
            if module is not self and hasattr(module, "reset_parameters"):
                module.reset_parameters()
        self._draw_weights()
        reset_lora(self)

    def _draw_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if self.absolute_pos_embed is not None:
            trunc_normal_(self.absolute_pos_embed, std=0.02)

    def train(self, mode: bool = True) -> "SwinBackbone":
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
        assert self.absolute_pos_embed is not None
        embed = self.absolute_pos_embed.unflatten(1, self.pos_embed_size)  # (1, Ph, Pw, C)
        if embed.shape[1:3] != x.shape[1:3]:
            # As the official detection code does for maps of another size.
            embed = F.interpolate(embed.permute(0, 3, 1, 2), x.shape[1:3], mode="bicubic")
            embed = embed.permute(0, 2, 3, 1)
        return x + embed

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Computes the feature maps of images `(B, in_channels, H, W)` of any size.

        For each `i` of `out_indices` there is one, `(B, embed_dims * 2**i, H_i, W_i)` in
        channels-last memory.
        """
        x = self.patch_embed(x)  # (B, H, W, C)
        if self.absolute_pos_embed is not None:
            x = self._add_pos_embed(x)
        x = self.drop_after_pos(x)
        maps = {}
        for i, stage in enumerate(cast(Sequence[SwinStage], self.layers)):
            if has_hooks(stage):
                pending = PendingResidual(stage(x))
            else:
                pending = stage.advance(PendingResidual(x))
            if i in self.out_indices:
                x, normed = pending.normalize(getattr(self, f"norm{i}"))
                maps[i] = normed.permute(0, 3, 1, 2)
            else:
                x = pending.materialize()
            if stage.downsample is not None:
                x = stage.downsample(x)
        return tuple([maps[i] for i in self.out_indices])
