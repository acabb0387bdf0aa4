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
    ResumedSchedulesHook,
    RuntimeInfoHook,
    SegVisualizationHook,
    StartTableHook,
    ValLossHook,
)
from .layer_decay import LayerDecayOptimWrapperConstructor
from .loops import EpochBasedTrainLoop, IterBasedTrainLoop
from .mixed_precision import AmpOptimWrapper
from .optim_wrapper import OptimWrapper
from .param_groups import MergedOptimWrapperConstructor, ResumeError
from .tracking import WandbVisBackend

__all__ = [
    "AmpOptimWrapper",
    "CheckpointHook",
    "CurvesHook",
    "DetVisualizationHook",
    "DumpLabelMaps",
    "EarlyStoppingHook",
    "EpochBasedTrainLoop",
    "ExactWeightsHook",
    "FastForwardHook",
    "IterBasedTrainLoop",
    "LayerDecayOptimWrapperConstructor",
    "MergedOptimWrapperConstructor",
    "NonFiniteLossError",
    "NonFiniteLossHook",
    "OptimWrapper",
    "PredictionSheetHook",
    "ProgressHook",
    "ResumeError",
    "ResumedSchedulesHook",
    "RuntimeInfoHook",
    "SegVisualizationHook",
    "StartTableHook",
    "ValLossHook",
    "WandbVisBackend",
]
