"""What happens around the model: hooks, learning rates, precision, checkpoint files."""

from .dump_label_maps import DumpLabelMaps
from .hooks import (
    CheckpointHook,
    CurvesHook,
    DetVisualizationHook,
    EarlyStoppingHook,
    ExactWeightsHook,
    FastForwardHook,
    PredictionSheetHook,
    ProgressHook,
    SegVisualizationHook,
    StartTableHook,
)
from .layer_decay import LayerDecayOptimWrapperConstructor
from .mixed_precision import AmpOptimWrapper

__all__ = [
    "AmpOptimWrapper",
    "CheckpointHook",
    "CurvesHook",
    "DetVisualizationHook",
    "DumpLabelMaps",
    "EarlyStoppingHook",
    "ExactWeightsHook",
    "FastForwardHook",
    "LayerDecayOptimWrapperConstructor",
    "PredictionSheetHook",
    "ProgressHook",
    "SegVisualizationHook",
    "StartTableHook",
]
