"""Better predictions from a trained detector: several views of an image, or slices of a large one.

Both are wrappers around a model that merge what it predicts. They need mmdet, which the modules in
`swin_mm.models` do not.
"""

from .mask_tta import MaskTTAModel
from .sliced import SlicedInference

__all__ = ["MaskTTAModel", "SlicedInference"]
