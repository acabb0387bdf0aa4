"""UPerNet's head."""

import torch
from mmseg.models.decode_heads import UPerHead as MmsegUPerHead
from torch import Tensor

from swin_mm.heads.decode.loss import LeanLoss
from swin_mm.registry import MODELS


@MODELS.register_module()
class UPerHead(LeanLoss, MmsegUPerHead):
    """Takes the arguments and the state dict of mmseg's `UPerHead`, and computes the same.

    Feature maps are in channels-last memory throughout, and the loss is that of `LeanLoss`.

    Source:
        Xiao et al., Unified Perceptual Parsing for Scene Understanding, 2018,
        https://arxiv.org/abs/1807.10221
    """

    def _transform_inputs(self, inputs: list[Tensor]) -> list[Tensor]:
        chosen = super()._transform_inputs(inputs)
        return [x.contiguous(memory_format=torch.channels_last) for x in chosen]

    def psp_forward(self, inputs: list[Tensor]) -> Tensor:
        """Joins the last map with its averages over regions.

        Args:
            inputs: Maps, the last one `(B, C, H, W)`.

        Returns:
            `(B, channels, H, W)`.
        """
        x = inputs[-1]
        # A map of one pixel is in either memory format: enlarged it comes out in the other, and
        # one such map among them makes the joined one, and all that follow, be in it too.
        pooled = [
            part.contiguous(memory_format=torch.channels_last) for part in self.psp_modules(x)
        ]
        return self.bottleneck(torch.cat([x, *pooled], dim=1))
