"""Hooks that mmengine's runner calls."""

from .checkpoint import CheckpointHook
from .curves import CurvesHook
from .det_visualization import DetVisualizationHook
from .early_stopping import EarlyStoppingHook
from .exact_weights import ExactWeightsHook
from .fast_forward import FastForwardHook
from .non_finite_loss import NonFiniteLossError, NonFiniteLossHook
from .prediction_sheet import PredictionSheetHook
from .progress import ProgressHook
from .resumed_schedules import ResumedSchedulesHook
from .runtime_info import RuntimeInfoHook
from .seg_visualization import SegVisualizationHook
from .start_table import StartTableHook
from .val_loss import ValLossHook

__all__ = [
    "CheckpointHook",
    "CurvesHook",
    "DetVisualizationHook",
    "EarlyStoppingHook",
    "ExactWeightsHook",
    "FastForwardHook",
    "NonFiniteLossError",
    "NonFiniteLossHook",
    "PredictionSheetHook",
    "ProgressHook",
    "ResumedSchedulesHook",
    "RuntimeInfoHook",
    "SegVisualizationHook",
    "StartTableHook",
    "ValLossHook",
]
