"""Fast Swin Transformer backbones and an FPN neck for MMDetection and MMSegmentation."""

from importlib import import_module
from typing import Any

from swin_mm import compat
from swin_mm.version import __version__

compat.install()

# Modules are imported on first use, so that `swin-mm --help` does not wait for torch.
_EXPORTS = {
    "FPN": "swin_mm.models",
    "Model": "swin_mm.inference.model",
    "Prediction": "swin_mm.inference.prediction",
    "MaskTTAModel": "swin_mm.inference",
    "SlicedInference": "swin_mm.inference",
    "SwinTransformer": "swin_mm.models",
    "SwinTransformerV2": "swin_mm.models",
    "base_config": "swin_mm.configs",
    "load": "swin_mm.inference.model",
}

__all__ = [
    "FPN",
    "MaskTTAModel",
    "Model",
    "Prediction",
    "SlicedInference",
    "SwinTransformer",
    "SwinTransformerV2",
    "__version__",
    "base_config",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
