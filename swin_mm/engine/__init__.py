"""What happens around the model: hooks, learning rates, precision, checkpoint files."""

# ruff: noqa: F401, the registries find types by importing this package

from .deferred_log import RuntimeInfoHook
from .hooks.checkpoint import CheckpointHook
from .hooks.compile import CompileHook
from .hooks.curves import CurvesHook
from .hooks.early_stopping import EarlyStoppingHook
from .hooks.exact_weights import ExactWeightsHook
from .hooks.non_finite_loss import NonFiniteLossError, NonFiniteLossHook
from .hooks.prediction_sheet import PredictionSheetHook
from .hooks.progress import ProgressHook
from .hooks.start_table import StartTableHook
from .hooks.val_loss import ValLossHook
from .hooks.visualization import DetVisualizationHook, SegVisualizationHook
from .layer_decay import LayerDecayOptimWrapperConstructor
from .loops import EpochBasedTrainLoop, IterBasedTrainLoop
from .optim_wrapper import AmpOptimWrapper, OptimWrapper
from .param_groups import MergedOptimWrapperConstructor, ResumedSchedulesHook, ResumeError
from .sharding import ShardedModel, ShardHook
from .tracking import WandbVisBackend
