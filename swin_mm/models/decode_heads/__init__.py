"""mmseg's decode heads in less memory."""

from swin_mm.models.decode_heads.fcn_head import FCNHead
from swin_mm.models.decode_heads.uper_head import UPerHead

__all__ = ["FCNHead", "UPerHead"]
