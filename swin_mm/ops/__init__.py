"""ops of swin_mm."""
