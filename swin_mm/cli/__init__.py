"""cli of swin_mm."""
