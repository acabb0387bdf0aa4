"""engine of swin_mm."""
