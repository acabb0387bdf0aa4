"""layers of swin_mm."""
