"""Test-time augmentation of segmentors: averages the probabilities of several views."""

from typing import Any

from mmengine.model import BaseModel as MmengineModel
from mmengine.structures import PixelData
from mmseg.models.decode_heads import SideAdapterCLIPHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.segmentors import SegTTAModel as MmsegSegTTAModel
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from swin_mm.heads.segmentors.encoder_decoder import EncoderDecoder
from swin_mm.registry import MODELS


@MODELS.register_module()
class SegTTAModel(MmsegSegTTAModel):
    """Takes the arguments of mmseg's `SegTTAModel`, and merges what each model really predicts.

    mmseg's takes all predictions for logits. Those of MaskFormer and Mask2Former are sums of masks
    weighted by the probabilities of classes, which are averaged as they are; and of a model with
    `out_channels=1` mmseg's segmentors give probabilities already.
    """

    def merge_preds(self, data_samples_list: list[list[SegDataSample]]) -> list[SegDataSample]:
        """Merges the views of each image.

        Returns:
            The first view's samples, with the merged `pred_sem_seg` `(1, H, W)` and as `seg_logits`
            `(C, H, W)` the averages.
        """
        merged = []
        for sample, *others in data_samples_list:
            mean = self._probabilities(sample)
            for other in others:
                mean = mean + self._probabilities(other)
            mean = mean / (1 + len(others))
            if len(mean) > 1:
                labels = mean.argmax(dim=0, keepdim=True)
            else:
                labels = (mean > _last_head(self.module).threshold).long()
            sample.set_data(
                dict(seg_logits=PixelData(data=mean), pred_sem_seg=PixelData(data=labels))
            )
            merged.append(sample)
        return merged

    def _probabilities(self, sample: SegDataSample) -> Tensor:
        scores = sample.seg_logits.data.float()  # (C, H, W)
        head = _last_head(self.module)
        if len(scores) == 1:
            return scores.sigmoid() if isinstance(self.module, EncoderDecoder) else scores
        # All other heads have a logit for each class and pixel.
        predicts_masks = not isinstance(head, BaseDecodeHead)
        if predicts_masks or isinstance(head, SideAdapterCLIPHead):
            return scores
        return scores.softmax(dim=0)


def _last_head(model: MmengineModel) -> Any:
    """The head that predicts; a cascade has several."""
    head = model.decode_head
    return head[-1] if isinstance(head, nn.ModuleList) else head
