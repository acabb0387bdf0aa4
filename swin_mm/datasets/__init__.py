"""datasets of swin_mm."""
