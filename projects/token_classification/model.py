"""A Swin Transformer for token sequences, which labels every token."""

from collections.abc import Sequence

import torch.nn.functional as F
from mmengine.model import BaseModel
from torch import Tensor, nn

from swin_mm.models.layers import SwinBlock, WindowAttention
from swin_mm.ops.context import ContextScale
from swin_mm.ops.window import pad_bottom_right
from swin_mm.registry import MODELS

IGNORED = -100  # label of tokens that have none, as in PyTorch's cross entropy


class PairMerging(nn.Module):
    """Joins two neighbouring tokens into one of twice the channels, after Swin's patch merging."""

    def __init__(self, embed_dims: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(2 * embed_dims)
        self.reduction = nn.Linear(2 * embed_dims, 2 * embed_dims, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, 1, L, C)` to `(B, 1, ceil(L/2), 2C)`; an odd length is zero-padded."""
        x = pad_bottom_right(x, (1, x.shape[2] + x.shape[2] % 2))
        x = x.unflatten(2, (-1, 2)).flatten(3)  # (B, 1, L/2, 2C)
        return self.reduction(self.norm(x))


@MODELS.register_module()
class SwinTokenClassifier(BaseModel):
    """Labels every token of a sequence, which is treated as a map of one row.

    Stages of (shifted) windowed attention are joined by mergings of neighbouring tokens, as in the
    Swin Transformer. Their outputs are added up from the last to the first, each repeated to twice
    its length, so that every token gets a prediction that has seen all scales.

    Args:
        vocab_size: Number of different tokens.
        num_labels: Number of labels.
        embed_dims: Channels `C` of the first stage; each later one doubles them.
        depths: Blocks of each stage; those of odd index have shifted windows.
        num_heads: Attention heads of each stage.
        window_size: Length of a window, in tokens of its stage.
        mlp_ratio: Width of the MLPs, in units of their stage's channels.
        drop_rate: Dropout of embeddings, attention outputs and MLPs.
        context_scales: Surroundings whose mean values every window mixes into its attention, such
            as `("window", "global")`; see `swin_mm.ops.context`. Empty for plain windows.

    Raises:
        ValueError: `depths` and `num_heads` differ in length, or arguments of a block disagree.

    Examples:
        >>> model = SwinTokenClassifier(vocab_size=100, num_labels=5)
        >>> model(torch.zeros(2, 50, dtype=torch.long)).shape
        torch.Size([2, 50, 5])
    """

    def __init__(
        self,
        vocab_size: int,
        num_labels: int,
        embed_dims: int = 48,
        depths: Sequence[int] = (2, 2, 2),
        num_heads: Sequence[int] = (2, 4, 8),
        window_size: int = 8,
        mlp_ratio: float = 4.0,
        drop_rate: float = 0.0,
        context_scales: Sequence[ContextScale] = ("window", "global"),
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if len(depths) != len(num_heads):
            raise ValueError(
                f"depths and num_heads must name the same stages, got {depths=}, {num_heads=}"
            )
        self.embedding = nn.Embedding(vocab_size, embed_dims)
        self.embed_norm = nn.LayerNorm(embed_dims)
        self.drop = nn.Dropout(drop_rate)
        self.stages, self.mergings = nn.ModuleList(), nn.ModuleList()
        self.laterals = nn.ModuleList()
        for i, (depth, heads) in enumerate(zip(depths, num_heads, strict=True)):
            channels = embed_dims * 2**i
            if i:
                self.mergings.append(PairMerging(channels // 2))
            blocks = []
            for j in range(depth):
                attn = WindowAttention(
                    channels,
                    heads,
                    (1, window_size),
                    is_shifted=j % 2 == 1,
                    proj_drop_rate=drop_rate,
                    context_scales=context_scales,
                )
                act_cfg, norm_cfg = dict(type="GELU"), dict(type="LN")
                blocks.append(SwinBlock(attn, mlp_ratio, drop_rate, 0.0, act_cfg, norm_cfg))
            self.stages.append(nn.Sequential(*blocks))
            self.laterals.append(
                nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, embed_dims))
            )
        self.head = nn.Sequential(nn.LayerNorm(embed_dims), nn.Linear(embed_dims, num_labels))
        self._draw_weights()

    def _draw_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                # Swin's 0.02 is for wide layers: in narrow ones signals would fade.
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            if isinstance(module, WindowAttention) and module.context_mix is not None:
                # Zeros keep what pretrained windows compute. Here there is nothing to keep, and
                # from zero neither the mix nor the values that it reads have much of a gradient.
                nn.init.normal_(module.context_mix, std=module.context_mix.shape[-1] ** -0.5)

    def extract(self, input_ids: Tensor) -> list[Tensor]:
        """Computes the output of each stage, `(B, 1, ceil(L/2**i), C*2**i)`."""
        x = self.drop(self.embed_norm(self.embedding(input_ids))).unsqueeze(1)  # (B, 1, L, C)
        maps = []
        for i, stage in enumerate(self.stages):
            x = stage(self.mergings[i - 1](x) if i else x)
            maps.append(x)
        return maps

    def classify(self, maps: Sequence[Tensor]) -> Tensor:
        """Turns the stages' outputs into scores, `(B, L, num_labels)`."""
        total: Tensor | None = None
        for x, lateral in reversed(list(zip(maps, self.laterals, strict=True))):
            x = lateral(x)
            if total is not None:
                x = x + total.repeat_interleave(2, dim=2)[:, :, : x.shape[2]]
            total = x
        assert total is not None
        return self.head(total.squeeze(1))

    def forward(
        self,
        input_ids: Tensor,
        labels: Tensor | None = None,
        sentence: Tensor | None = None,
        mode: str = "tensor",
    ) -> Tensor | dict[str, Tensor] | list[dict[str, Tensor]]:
        """Scores, loss or labels of a batch.

        Args:
            input_ids: `(B, L)`, any `L`.
            labels: `(B, L)`; `IGNORED` where a token has none. Needed by `loss` and `predict`.
            sentence: `(B,)`, which sentence of the data each sequence is of.
            mode: `tensor` gives scores `(B, L, num_labels)`; `loss` the mean cross entropy;
                `predict` for each sequence what was predicted and what is true, of labelled tokens.
        """
        logits = self.classify(self.extract(input_ids))
        if mode == "tensor":
            return logits
        assert labels is not None
        if mode == "loss":
            loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
            return {"loss": loss}
        assert sentence is not None
        return [
            {"sentence": number, "predicted": one[true != IGNORED], "true": true[true != IGNORED]}
            for number, one, true in zip(sentence, logits.argmax(-1), labels, strict=True)
        ]
