"""What happens around the model: hooks, mixed precision, checkpoint files, kept predictions."""

from .dump_label_maps import DumpLabelMaps
from .hooks import (
    CheckpointHook,
    CurvesHook,
    ExactWeightsHook,
    FastForwardHook,
    PredictionSheetHook,
    ProgressHook,
    SegVisualizationHook,
    StartTableHook,
)
from .mixed_precision import AmpOptimWrapper

__all__ = [
    "AmpOptimWrapper",
    "CheckpointHook",
    "CurvesHook",
    "DumpLabelMaps",
    "ExactWeightsHook",
    "FastForwardHook",
    "PredictionSheetHook",
    "ProgressHook",
    "SegVisualizationHook",
    "StartTableHook",
]
