"""Window attention of Swin V2: cosine scores, and a position bias computed by a small network."""

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swin_mm.models.layers.attention import WindowAttentionBase
from swin_mm.models.layers.hooks import has_hooks, is_bare_linear
from swin_mm.ops.cosine import scale_to_cosine
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
        **arguments: Any,
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

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.constant_(self.logit_scale, INITIAL_LOGIT_SCALE)
        for bias in (self.q_bias, self.v_bias):
            if bias is not None:
                nn.init.zeros_(bias)

    def bias_table(self) -> Tensor:
        """The bias of each relative position, `((2*Wh-1)*(2*Ww-1), nH)`."""
        device = self.logit_scale.device
        offsets = log_spaced_offsets(self.window_size, self.position_unit, device)
        # The meta device has no autocast.
        with torch.autocast("cpu" if device.type == "meta" else device.type, enabled=False):
            if self._has_plain_cpb_mlp():
                hidden, out = cast(nn.Linear, self.cpb_mlp[0]), cast(nn.Linear, self.cpb_mlp[2])
                dtype = torch.promote_types(out.weight.dtype, torch.float32)
                table = F.linear(offsets.to(dtype), hidden.weight.to(dtype), hidden.bias.to(dtype))
                table = F.linear(table.relu(), out.weight.to(dtype))  # ((2*Wh-1)*(2*Ww-1), nH)
            else:
                # Quantised layers have no parameters, and take float32.
                given = next((p.dtype for p in self.cpb_mlp.parameters()), torch.float32)
                table = self.cpb_mlp(offsets.to(given))
                table = table.to(torch.promote_types(table.dtype, torch.float32))
        return MAX_BIAS * table.sigmoid()

    def _has_plain_cpb_mlp(self) -> bool:
        """Whether the network is its weights and nothing more."""
        kinds = [type(layer) for layer in self.cpb_mlp]
        is_hooked = any(map(has_hooks, self.cpb_mlp.modules()))
        return kinds == [nn.Linear, nn.ReLU, nn.Linear] and not is_hooked

    def project(self, x: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        logit_scale, bias = self.logit_scale.flatten(), None
        if self.q_bias is not None and self.v_bias is not None:
            bias = torch.cat([self.q_bias, torch.zeros_like(self.v_bias), self.v_bias])
        if not is_bare_linear(self.qkv):
            qkv, pad_token = self.call_qkv(x)
            qkv = qkv if bias is None else qkv + bias
            if pad_token is not None:
                pad_token = pad_token if bias is None else pad_token + bias
                pad_token = scale_to_cosine(pad_token, logit_scale)
            return scale_to_cosine(qkv, logit_scale), pad_token, self.bias_table()
        qkv = F.linear(x, self.qkv.weight, bias)
        pad_token = None
        if self.v_bias is not None:
            # The key of a zero token is zero, and the output of a padded query is dropped.
            no_bias = torch.zeros_like(self.v_bias)
            pad_token = torch.cat([no_bias, no_bias, self.v_bias])
        return scale_to_cosine(qkv, logit_scale), pad_token, self.bias_table()
