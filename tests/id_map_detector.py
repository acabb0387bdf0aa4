"""A detector that is always right, for tests of what happens around detectors.

Its images show the number of an object at each pixel, 0 being background. So it finds in any part
of an image exactly what is to be seen there, and in a flipped or enlarged image the same objects
flipped or enlarged.
"""

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import nn

CLASSES = 3


def score_of(number: int) -> float:
    """The score of object `number`: different for each, 0.99 for the first."""
    return 1 - number / 100


class IdMapDetector(nn.Module):
    """Finds the objects whose numbers the pixels are; object `n` is of class `n % CLASSES`.

    Args:
        with_masks: Whether it predicts masks too.
        weights: What scores are multiplied by, from one call of `test_step` to the next.
    """

    def __init__(self, with_masks: bool = True, weights: tuple[float, ...] = (1.0,)) -> None:
        super().__init__()
        self.with_masks = with_masks
        self.weights = weights
        self.sizes = []  # of the images seen, (height, width)

    def test_step(self, data: dict) -> list[DetDataSample]:
        weight = self.weights[len(self.sizes) % len(self.weights)]
        for image, sample in zip(data["inputs"], data["data_samples"], strict=True):
            self.sizes.append(tuple(image.shape[1:]))
            sample.pred_instances = self._detect(image[0].numpy(), sample.metainfo, weight)
        return data["data_samples"]

    def _detect(self, numbers: np.ndarray, meta: dict, weight: float) -> InstanceData:
        height, width = meta["ori_shape"]
        rows = np.arange(height) * numbers.shape[0] // height
        columns = np.arange(width) * numbers.shape[1] // width
        numbers = numbers[rows][:, columns]
        present = [int(n) for n in np.unique(numbers) if n]
        masks = torch.zeros(len(present), height, width, dtype=torch.bool)
        boxes = torch.zeros(len(present), 4)
        for box, mask, number in zip(boxes, masks, present, strict=True):
            mask[:] = torch.from_numpy(numbers == number)
            ys, xs = torch.nonzero(mask, as_tuple=True)
            box[:] = torch.stack([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        found = InstanceData(
            bboxes=boxes,
            scores=torch.tensor([weight * score_of(n) for n in present]),
            labels=torch.tensor([n % CLASSES for n in present], dtype=torch.long),
        )
        if self.with_masks:
            found.masks = masks
        return found


def as_image(numbers: np.ndarray) -> np.ndarray:
    """Makes an image `(H, W, 3)` of a map of object numbers `(H, W)`."""
    return np.repeat(numbers.astype(np.uint8)[..., None], 3, axis=2)
