"""Hooks that mmengine's runner calls."""

from .checkpoint import CheckpointHook
from .exact_weights import ExactWeightsHook
from .progress import ProgressHook
from .seg_visualization import SegVisualizationHook
from .start_table import StartTableHook

__all__ = [
    "CheckpointHook",
    "ExactWeightsHook",
    "ProgressHook",
    "SegVisualizationHook",
    "StartTableHook",
]
