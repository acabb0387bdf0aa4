"""checkpoint of swin_mm."""
