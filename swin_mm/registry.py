"""Child registries of mmengine's roots, scope `swin_mm`.

mmengine imports `<scope>.registry` by itself when it meets `type='swin_mm.X'`, and then the modules
in `locations`, so a type resolves by its name alone once the package is installed.
"""

from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODEL_WRAPPERS as MMENGINE_MODEL_WRAPPERS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import VISBACKENDS as MMENGINE_VISBACKENDS
from mmengine.registry import Registry

MODELS = Registry(
    "model",
    parent=MMENGINE_MODELS,
    scope="swin_mm",
    # The others need mmdet or mmseg, so importing `swin_mm.models` does not bring them.
    locations=[
        "swin_mm.models",
        "swin_mm.heads.data_preprocessor",
        "swin_mm.heads.decode",
        "swin_mm.heads.dense",
        "swin_mm.heads.roi",
        "swin_mm.heads.segmentors",
        "swin_mm.inference",
    ],
)
HOOKS = Registry("hook", parent=MMENGINE_HOOKS, scope="swin_mm", locations=["swin_mm.engine"])
LOOPS = Registry("loop", parent=MMENGINE_LOOPS, scope="swin_mm", locations=["swin_mm.engine"])
MODEL_WRAPPERS = Registry(
    "model wrapper",
    parent=MMENGINE_MODEL_WRAPPERS,
    scope="swin_mm",
    locations=["swin_mm.engine"],
)
OPTIM_WRAPPERS = Registry(
    "optim_wrapper",
    parent=MMENGINE_OPTIM_WRAPPERS,
    scope="swin_mm",
    locations=["swin_mm.engine"],
)
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    "optimizer wrapper constructor",
    parent=MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS,
    scope="swin_mm",
    locations=["swin_mm.engine"],
)
VISBACKENDS = Registry(
    "vis_backend",
    parent=MMENGINE_VISBACKENDS,
    scope="swin_mm",
    locations=["swin_mm.engine"],
)
DATASETS = Registry(
    "dataset",
    parent=MMENGINE_DATASETS,
    scope="swin_mm",
    locations=["swin_mm.datasets.shapes_dataset"],
)
TRANSFORMS = Registry(
    "transform",
    parent=MMENGINE_TRANSFORMS,
    scope="swin_mm",
    # The others need mmdet, so importing `swin_mm.datasets.transforms` does not bring them.
    locations=[
        "swin_mm.datasets.transforms",
        "swin_mm.datasets.transforms.load_annotations",
        "swin_mm.datasets.transforms.pack",
    ],
)
METRICS = Registry(
    "metric",
    parent=MMENGINE_METRICS,
    scope="swin_mm",
    locations=["swin_mm.evaluation"],
)
