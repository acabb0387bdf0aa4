"""mmseg's decode heads in less memory."""

from swin_mm.heads.decode.heads import FCNHead, UPerHead

__all__ = ["FCNHead", "UPerHead"]
