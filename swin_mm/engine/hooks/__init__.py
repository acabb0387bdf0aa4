"""Hooks that mmengine's runner calls."""
