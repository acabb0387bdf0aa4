"""The last step of a pipeline."""

import numpy as np
import torch
from mmdet.datasets.transforms import PackDetInputs as MmdetPackDetInputs
from mmengine.structures import PixelData
from mmseg.datasets.transforms import PackSegInputs as MmsegPackSegInputs
from torch import Tensor

from swin_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class PackDetInputs(MmdetPackDetInputs):
    """Takes the arguments of mmdet's `PackDetInputs` and returns the same image and annotations.

    The image is not copied from bands last to bands first, which is a third of what is left of the
    pipeline once masks stay polygons; `inputs` is `(bands, H, W)` in the memory of `(H, W, bands)`.
    """

    def transform(self, results: dict) -> dict:
        """Packs `results["img"]`, `(H, W)` or `(H, W, bands)`, and what is known of it."""
        others = {key: value for key, value in results.items() if key != "img"}
        packed = super().transform(others)
        if "img" not in results:
            return packed
        return {"inputs": _as_bands_first(results["img"]), **packed}


@TRANSFORMS.register_module()
class PackSegInputs(MmsegPackSegInputs):
    """Takes the arguments of mmseg's `PackSegInputs` and returns the same image and annotations.

    Images are not copied, as in `PackDetInputs`, and a label map of uint8 stays so, an eighth of
    what int64 takes on its way from the workers and to the GPU; `swin_mm.SegDataPreProcessor` and
    `swin_mm.EncoderDecoder` widen it.
    """

    def transform(self, results: dict) -> dict:
        """Packs `results["img"]`, `(H, W)` or `(H, W, bands)`, and what is known of it."""
        others = {key: value for key, value in results.items() if key != "img"}
        labels = others.get("gt_seg_map")
        is_narrow = labels is not None and labels.dtype == np.uint8 and labels.ndim == 2
        if is_narrow:
            del others["gt_seg_map"]
        packed = super().transform(others)
        if labels is not None and is_narrow:
            labels = torch.from_numpy(_contiguous(labels))[None]  # (1, H, W)
            packed["data_samples"].gt_sem_seg = PixelData(data=labels)
        if "img" not in results:
            return packed
        return {"inputs": _as_bands_first(results["img"]), **packed}


def _as_bands_first(image: np.ndarray) -> Tensor:
    """`(bands, H, W)` in the memory of `(H, W, bands)`, or of `(H, W)`."""
    image = _contiguous(image if image.ndim == 3 else image[..., None])
    return torch.from_numpy(image).permute(2, 0, 1)


def _contiguous(array: np.ndarray) -> np.ndarray:
    """The array in C order; NumPy takes a flipped side of one pixel for that, PyTorch does not."""
    array = np.ascontiguousarray(array)
    return array.copy() if min(array.strides) < 0 else array
