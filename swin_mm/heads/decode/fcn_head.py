"""The fully convolutional head, UPerNet's auxiliary one."""

import torch
from mmseg.models.decode_heads import FCNHead as MmsegFCNHead
from torch import Tensor

from swin_mm.heads.decode.loss import LeanLoss
from swin_mm.registry import MODELS


@MODELS.register_module()
class FCNHead(LeanLoss, MmsegFCNHead):
    """Takes the arguments and the state dict of mmseg's `FCNHead`, and computes the same.

    Feature maps are in channels-last memory throughout, and the loss is that of `LeanLoss`.

    Source:
        Long et al., Fully Convolutional Networks for Semantic Segmentation, 2015,
        https://arxiv.org/abs/1411.4038
    """

    def _transform_inputs(self, inputs: list[Tensor]) -> Tensor:
        return super()._transform_inputs(inputs).contiguous(memory_format=torch.channels_last)
