"""mmseg's segmentors, with windows of an image side by side in a batch."""

from swin_mm.heads.segmentors.encoder_decoder import EncoderDecoder
from swin_mm.heads.segmentors.seg_tta import SegTTAModel

__all__ = ["EncoderDecoder", "SegTTAModel"]
