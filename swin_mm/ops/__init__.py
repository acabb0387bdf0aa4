"""Operators of windowed attention: pure functions on tensors, torch only."""

from swin_mm.ops.dispatch import explain, window_attention

__all__ = ["explain", "window_attention"]
