"""What happens around the model while it trains: hooks, optimizer wrapper, checkpoint files."""

from .hooks import CheckpointHook

__all__ = ["CheckpointHook"]
