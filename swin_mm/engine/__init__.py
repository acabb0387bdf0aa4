"""What happens around the model: hooks, learning rates, precision, checkpoint files."""

from .dump_label_maps import DumpLabelMaps
from .hooks import (
    CheckpointHook,
    CurvesHook,
    DetVisualizationHook,
    EarlyStoppingHook,
    ExactWeightsHook,
    FastForwardHook,
    NonFiniteLossError,
    NonFiniteLossHook,
    PredictionSheetHook,
    ProgressHook,
    SegVisualizationHook,
    StartTableHook,
    ValLossHook,
)
from .layer_decay import LayerDecayOptimWrapperConstructor
from .mixed_precision import AmpOptimWrapper
from .tracking import WandbVisBackend

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
    "NonFiniteLossError",
    "NonFiniteLossHook",
    "PredictionSheetHook",
    "ProgressHook",
    "SegVisualizationHook",
    "StartTableHook",
    "ValLossHook",
    "WandbVisBackend",
]
