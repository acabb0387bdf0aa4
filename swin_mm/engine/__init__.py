"""What happens around the model while it trains: hooks, optimizer wrapper, checkpoint files."""

from .hooks import CheckpointHook
from .mixed_precision import AmpOptimWrapper

__all__ = ["AmpOptimWrapper", "CheckpointHook"]
