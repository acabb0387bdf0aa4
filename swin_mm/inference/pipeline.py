"""How images reach a model: loaded, transformed, predicted plainly, in views or in slices."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dataset import Compose, pseudo_collate
from mmengine.structures import BaseDataElement

from swin_mm.configs import ConfigError, bare_type
from swin_mm.datasets.bands import MissingReaderError
from swin_mm.datasets.reader import (
    Reader,
    UnreadableError,
    check_file,
    explain_failure,
    find_loading,
    unreadable,
)
from swin_mm.export.runtime import read_image
from swin_mm.inference.sliced import Progress, SlicedInference
from swin_mm.inference.sources import Source


class Pipeline:
    """How images reach a model: plainly, in several views, or in slices.

    Args:
        steps: Settings of the transforms, without those that load annotations.
        module: The network, or a wrapper that merges what it predicts.
    """

    def __init__(self, steps: list[dict], module: Any) -> None:
        index = find_loading(steps)
        if index is None:
            raise ConfigError("the pipeline of test_dataloader has no step that loads the image")
        self.reader = Reader(steps[index])
        self.loading = Compose(steps[: index + 1])
        self.rest = Compose(steps[index + 1 :])
        self.module = module

    def load(self, source: Source) -> dict[str, Any]:
        """Loads an image, once, as the pipeline does."""
        if source.path is not None:
            check_file(source.path)
            try:
                return self.loading({"img_path": str(source.path), "img_id": 0})
            except MissingReaderError:
                raise
            except Exception as error:  # decoders raise all kinds
                reason = f"cannot be loaded ({explain_failure(error)})"
                if self.reader.can_check:
                    raise unreadable(source.path, reason) from None
                raise UnreadableError(f"{source.path} {reason}") from None
        assert source.image is not None
        pixels = source.image
        if not isinstance(pixels, np.ndarray):
            pixels = read_image(pixels, self.reader.turns)
        image = self.reader.take(pixels)
        size = image.shape[:2]
        return dict(img=image, img_path=source.name, img_id=0, img_shape=size, ori_shape=size)

    def picture(self, image: np.ndarray) -> np.ndarray:
        """Turns a loaded image into `(H, W, 3)`, uint8, RGB."""
        return self.reader.show(self.reader.swap_colours(image))

    def run(
        self, batch: Sequence[dict[str, Any]], progress: Progress | None = None
    ) -> list[BaseDataElement]:
        """Predicts loaded images."""
        data = [self.rest({**results}) for results in batch]
        if isinstance(self.module, SlicedInference):
            samples = []
            for one in data:
                sample = one["data_samples"]
                image = one["inputs"].permute(1, 2, 0).contiguous().numpy()  # (H, W, C)
                sample.pred_instances = self.module.predict_image(image, sample.metainfo, progress)
                samples.append(sample)
            return samples
        with torch.no_grad():
            samples = self.module.test_step(pseudo_collate(data))
        if progress is not None:
            progress(1, 1)
        return samples


def without_annotations(steps: Sequence[dict]) -> list[dict]:
    """Leaves out of a pipeline what loads annotations, also within `TestTimeAug`."""
    kept = []
    for step in steps:
        if "Annotations" in bare_type(step):
            continue
        if "transforms" in step:
            branches = (without_annotations(branch) for branch in step["transforms"])
            step = dict(step, transforms=[branch for branch in branches if branch])
        kept.append(step)
    return kept
