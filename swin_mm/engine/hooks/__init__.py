"""Hooks that mmengine's runner calls."""

from .checkpoint import CheckpointHook

__all__ = ["CheckpointHook"]
