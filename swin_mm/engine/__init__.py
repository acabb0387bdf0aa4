"""What happens around the model: hooks, mixed precision, checkpoint files, kept predictions."""

from .dump_label_maps import DumpLabelMaps
from .hooks import (
    CheckpointHook,
    ExactWeightsHook,
    PredictionSheetHook,
    ProgressHook,
    SegVisualizationHook,
    StartTableHook,
)
from .mixed_precision import AmpOptimWrapper

__all__ = [
    "AmpOptimWrapper",
    "CheckpointHook",
    "DumpLabelMaps",
    "ExactWeightsHook",
    "PredictionSheetHook",
    "ProgressHook",
    "SegVisualizationHook",
    "StartTableHook",
]
