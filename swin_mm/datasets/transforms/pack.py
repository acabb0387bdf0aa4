"""The last step of a detection pipeline."""

import numpy as np
import torch
from mmdet.datasets.transforms import PackDetInputs as MmdetPackDetInputs

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
        image = results["img"]
        image = np.ascontiguousarray(image if image.ndim == 3 else image[..., None])
        return {"inputs": torch.from_numpy(image).permute(2, 0, 1), **packed}
