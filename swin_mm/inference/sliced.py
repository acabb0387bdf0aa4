"""Sliced inference: a large image is predicted in overlapping slices, at full resolution."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import mmcv
import numpy as np
import torch
from mmcv.transforms import Compose
from mmdet.models.utils import samplelist_boxtype2tensor
from mmengine.dataset import pseudo_collate
from mmengine.model import BaseTTAModel
from mmengine.registry import TRANSFORMS
from mmengine.structures import BaseDataElement, InstanceData
from torch import nn

from swin_mm.inference.merge_slices import MatchRule, merge_slices
from swin_mm.inference.run_length import Region, RunLengthMasks, crop_masks
from swin_mm.registry import MODELS
from swin_mm.structures import Objects

Progress = Callable[[int, int], None]

# A detector returns masks of the size of its image, a hundred of them: of a larger image they would
# need more than 400 MB. It shrinks large images itself, so the whole image loses little by it.
MAX_PIXELS = 2048 * 2048


@MODELS.register_module()
class SlicedInference(BaseTTAModel):
    """Runs a detector on slices of each image and joins what it finds, instance masks included.

    The names of the parameters, and their defaults, are those of SAHI. Masks are kept as run
    lengths, so memory grows with what is found, not with the size of the image.

    Args:
        module: The detector, or its config; any of mmdet that predicts boxes.
        pipeline: Transforms from a slice to what the detector takes, such as resizing and packing;
            loading is not among them.
        slice_height: Pixels of the image.
        slice_width: Pixels of the image.
        overlap_height_ratio: Overlap of neighbours as a part of the slice's height. Best such that
            the overlap is as high as common objects.
        overlap_width_ratio: The same of the width.
        full_image: Whether to predict the whole image too, for objects larger than a slice.
        batch_size: Slices at a time.
        match_metric: `IOS` or `IOU`, see `MatchRule`.
        match_threshold: See `MatchRule`.
        class_agnostic: Whether detections of different classes can be one object.

    Raises:
        ValueError: A parameter makes no sense.
    """

    def __init__(
        self,
        module: dict | nn.Module,
        pipeline: Sequence[dict | Callable],
        slice_height: int = 512,
        slice_width: int = 512,
        overlap_height_ratio: float = 0.2,
        overlap_width_ratio: float = 0.2,
        full_image: bool = True,
        batch_size: int = 1,
        match_metric: str = "IOS",
        match_threshold: float = 0.5,
        class_agnostic: bool = False,
    ) -> None:
        super().__init__(module)
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.pipeline = Compose(
            [TRANSFORMS.build(step) if isinstance(step, dict) else step for step in pipeline]
        )
        self.slice_size = (slice_height, slice_width)
        self.overlap_ratios = (overlap_height_ratio, overlap_width_ratio)
        make_slices(1, 1, self.slice_size, self.overlap_ratios)  # refuses wrong ones now
        self.full_image = full_image
        self.batch_size = batch_size
        self.rule = MatchRule(match_metric, match_threshold, class_agnostic)

    def test_step(self, data: dict[str, Any]) -> list[BaseDataElement]:
        """Predicts a batch of whole images.

        Args:
            data: `inputs`, images `(C, H, W)` as loaded, and `data_samples`, one for each.

        Returns:
            The samples with `pred_instances` in the images' own coordinates.
        """
        for image, sample in zip(data["inputs"], data["data_samples"], strict=True):
            pixels = image.permute(1, 2, 0).contiguous().cpu().numpy()  # (H, W, C)
            sample.pred_instances = self.predict_image(pixels, sample.metainfo)
        samplelist_boxtype2tensor(data["data_samples"])  # ground truth, as detectors leave it
        return data["data_samples"]

    def predict_image(
        self,
        image: np.ndarray,
        meta: dict[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> InstanceData:
        """Predicts one image.

        Args:
            image: `(H, W, C)`, channels in the order that loading gives them (BGR by default).
            meta: What else the transforms may ask for, such as `img_path`.
            progress: Called after each batch with the number of slices done and of all.

        Returns:
            `bboxes` `(M, 4)`, `scores`, `labels` and, if the detector predicts them, `masks` as
            `RunLengthMasks`; the best score first.

        Raises:
            ValueError: The model predicts no instances with boxes.
        """
        height, width = image.shape[:2]
        slices = make_slices(height, width, self.slice_size, self.overlap_ratios)
        whole = (0, 0, width, height)
        if self.full_image and whole not in slices:
            slices.append(whole)
        parts = []
        for start in range(0, len(slices), self.batch_size):
            parts += self._predict_slices(image, slices, start, meta or {})
            if progress is not None:
                progress(min(start + self.batch_size, len(slices)), len(slices))
        objects = merge_slices(InstanceData.cat(parts), slices, (height, width), self.rule)
        return _to_instances(objects, height, width)

    def _predict_slices(
        self, image: np.ndarray, slices: Sequence[Region], start: int, meta: dict[str, Any]
    ) -> list[InstanceData]:
        """Predicts one batch of slices, from number `start` on."""
        batch, scales = [], []
        for left, top, right, bottom in slices[start : start + self.batch_size]:
            crop, scale = _shrink(image[top:bottom, left:right])
            size = crop.shape[:2]
            batch.append(self.pipeline({**meta, "img": crop, "img_shape": size, "ori_shape": size}))
            scales.append(scale)
        with torch.no_grad():
            samples = self.module.test_step(pseudo_collate(batch))
        return [
            _to_detections(sample, start + i, slices[start + i], scales[i])
            for i, sample in enumerate(samples)
        ]

    def merge_preds(self, data_samples_list: Any) -> Any:
        """Not used: slices have places, which this method of mmengine's is not told."""
        raise NotImplementedError("SlicedInference merges within test_step")


def _shrink(image: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """Shrinks an image that has more than `MAX_PIXELS`.

    Returns:
        The image, and by what its width and height were divided; both end at whole pixels, so the
        two differ a little.
    """
    height, width = image.shape[:2]
    scale = math.sqrt(height * width / MAX_PIXELS)
    if scale <= 1:
        return np.ascontiguousarray(image), (1.0, 1.0)
    size = (max(1, round(width / scale)), max(1, round(height / scale)))
    shrunk = mmcv.imresize(image, size, interpolation="area")
    return shrunk, (width / size[0], height / size[1])


def _to_detections(
    sample: BaseDataElement, number: int, region: Region, scale: tuple[float, float]
) -> InstanceData:
    """Takes over what was predicted in slice `number`, into coordinates of the image."""
    found = sample.get("pred_instances")
    if found is None or "bboxes" not in found:
        raise ValueError(
            "sliced inference joins instances with boxes, and this model predicts none; for "
            "semantic segmentation set model.test_cfg.mode='slide' instead"
        )
    found = found.cpu()
    left, top = region[:2]
    detections = InstanceData(
        bboxes=found.bboxes.numpy() * np.array(scale * 2) + np.array([left, top, left, top]),
        scores=found.scores.numpy(),
        labels=found.labels.numpy(),
        slices=np.full(len(found), number),
    )
    if "masks" in found:
        masks = crop_masks(found.masks.numpy(), left, top, scale)
        detections.masks = np.array(masks, dtype=object)
    return detections


def _to_instances(objects: Objects, height: int, width: int) -> InstanceData:
    instances = InstanceData(
        bboxes=torch.from_numpy(objects.boxes),
        scores=torch.from_numpy(objects.scores),
        labels=torch.from_numpy(objects.labels),
    )
    if objects.masks is not None:
        instances.masks = RunLengthMasks(objects.masks, height, width)
    return instances


def make_slices(
    height: int, width: int, slice_size: tuple[int, int], overlap_ratios: tuple[float, float]
) -> list[Region]:
    """Covers an image with overlapping slices of one size.

    Slices at the right and bottom borders are moved inwards, not cut, so that the model sees the
    same size everywhere; an image smaller than a slice is one slice as it is.

    Args:
        height, width: Pixels of the image.
        slice_size: Height and width of a slice, in pixels.
        overlap_ratios: Least overlap of neighbours, as parts of a slice's height and width.

    Returns:
        The slices, row by row.

    Raises:
        ValueError: A slice is empty, or neighbours overlap by nothing sensible.
    """
    for name, size in zip(("slice_height", "slice_width"), slice_size, strict=True):
        if size < 1:
            raise ValueError(f"{name} must be at least 1 pixel, got {size}")
    names = ("overlap_height_ratio", "overlap_width_ratio")
    for name, ratio in zip(names, overlap_ratios, strict=True):
        if not 0 <= ratio < 1:
            raise ValueError(f"{name} must be at least 0 and less than 1, got {ratio}")
    rows = _cover(height, slice_size[0], overlap_ratios[0])
    columns = _cover(width, slice_size[1], overlap_ratios[1])
    return [(left, top, right, bottom) for top, bottom in rows for left, right in columns]


def _cover(length: int, size: int, ratio: float) -> list[tuple[int, int]]:
    """Covers a line of `length` pixels with stretches of `size`; returns starts and ends."""
    if size >= length:
        return [(0, length)]
    step = max(1, size - int(ratio * size))
    starts = [*range(0, length - size, step), length - size]
    return [(start, start + size) for start in starts]
