"""mmseg's decode heads in less memory."""

from swin_mm.heads.decode.fcn_head import FCNHead
from swin_mm.heads.decode.uper_head import UPerHead

__all__ = ["FCNHead", "UPerHead"]
