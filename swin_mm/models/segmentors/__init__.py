"""mmseg's segmentors, with windows of an image side by side in a batch."""

from swin_mm.models.segmentors.encoder_decoder import EncoderDecoder
from swin_mm.models.segmentors.seg_tta import SegTTAModel

__all__ = ["EncoderDecoder", "SegTTAModel"]
