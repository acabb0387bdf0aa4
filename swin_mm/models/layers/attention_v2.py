"""Window attention of Swin V2: cosine scores, and a position bias computed by a small network."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swin_mm.models.layers.attention import WindowAttentionBase
from swin_mm.models.layers.linear import apply_linear, is_plain
from swin_mm.ops.cosine import scale_to_cosine
from swin_mm.ops.linear import linear
from swin_mm.ops.position import log_spaced_offsets

# The position bias lies between 0 and this.
# Source: microsoft/Swin-Transformer, models/swin_transformer_v2.py, WindowAttention.forward.
MAX_BIAS = 16.0
CPB_HIDDEN_DIMS = 512
INITIAL_LOGIT_SCALE = math.log(10)


class CosineWindowAttention(WindowAttentionBase):
    """Window attention of V2: scaled cosines, and a bias that is continuous in the position.

    Lengths, factors and the position bias are computed in float32 at least, in whatever precision
    the layer runs.

    Args:
        qkv_bias: Whether query and value have a bias; the key has none.
        pretrained_window_size: `(Wh, Ww)` that the position bias was trained with, in tokens; it
            is the unit of relative positions. A side of 0 stands for that of `window_size`.

    The other arguments are those of `WindowAttentionBase`.

    Source:
        Liu et al., Swin Transformer V2, 2022, sections 3.2 and 3.3.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        window_size: tuple[int, int],
        *,
        qkv_bias: bool = True,
        pretrained_window_size: tuple[int, int] = (0, 0),
        **arguments,
    ) -> None:
        super().__init__(embed_dims, num_heads, window_size, qkv_bias=False, **arguments)
        self.position_unit = tuple(
            pretrained or side
            for pretrained, side in zip(pretrained_window_size, window_size, strict=True)
        )
        self.logit_scale = nn.Parameter(torch.full((num_heads, 1, 1), INITIAL_LOGIT_SCALE))
        self.cpb_mlp = nn.Sequential(
            nn.Linear(2, CPB_HIDDEN_DIMS),
            nn.ReLU(),
            nn.Linear(CPB_HIDDEN_DIMS, num_heads, bias=False),
        )
        self.q_bias = nn.Parameter(torch.zeros(embed_dims)) if qkv_bias else None
        self.v_bias = nn.Parameter(torch.zeros(embed_dims)) if qkv_bias else None

    def bias_table(self) -> Tensor:
        hidden, _, out = self.cpb_mlp
        dtype = torch.promote_types(out.weight.dtype, torch.float32)
        offsets = log_spaced_offsets(self.window_size, self.position_unit, out.weight.device)
        with torch.autocast(offsets.device.type, enabled=False):
            table = F.linear(offsets.to(dtype), hidden.weight.to(dtype), hidden.bias.to(dtype))
            table = F.linear(table.relu(), out.weight.to(dtype))  # ((2*Wh-1)*(2*Ww-1), nH)
        return MAX_BIAS * table.sigmoid()

    def project(self, x: Tensor, norm: nn.Module | None = None) -> tuple[Tensor, Tensor | None]:
        x = x if norm is None else norm(x)
        if self.q_bias is None:
            qkv, pad_token = apply_linear(self.qkv, x), None
        else:
            no_bias = torch.zeros_like(self.v_bias)
            bias = torch.cat([self.q_bias, no_bias, self.v_bias])
            if is_plain(self.qkv):
                qkv = linear(x, self.qkv.weight, bias)
            else:
                qkv = self.qkv(x) + bias
            # The key of a zero token is zero, and nobody sees what a padded query finds.
            pad_token = torch.cat([no_bias, no_bias, self.v_bias])
        return scale_to_cosine(qkv, self.logit_scale.flatten()), pad_token
