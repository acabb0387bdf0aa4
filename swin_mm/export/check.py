"""Runs an exported file beside the model that it was made from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmseg.structures import SegDataSample

from swin_mm.export.plan import ExportError, Plan
from swin_mm.export.runtime import ExportedModel, paste_masks, resize_bilinear
from swin_mm.structures import read_segments

# Differences that rounding explains; exported and eager models sum in another order.
MAX_BOX_SHIFT = 0.05  # pixels
MAX_SCORE_SHIFT = 1e-3
MAX_PIXELS = 1e-3  # share of pixels of a label map
MAX_GAP = 1e-4  # between logits of two classes that rounding may exchange, of the largest logit
MAX_MASK_PIXELS = 0.01  # share of the pixels of a mask
MAX_FEATURES = 1e-3  # of the largest value of a map


@dataclass
class Difference:
    """Largest differences between file and model at one size.

    Attributes:
        size: `(B, H, W)`.
        compared: How many detections, pixels or maps were compared.
        values: Largest difference by name, such as `boxes` in pixels.
        errors: What is beyond rounding.
    """

    size: tuple[int, int, int]
    compared: int
    values: dict[str, float]
    errors: list[str]

    def describe(self) -> str:
        """One line."""
        batch, height, width = self.size
        values = ", ".join(f"{name} {value:.2g}" for name, value in self.values.items())
        return f"{batch} x {height}x{width}: {self.compared} compared, {values or 'none'}"


def check_file(
    exported: ExportedModel,
    model: Any,
    plan: Plan,
    sizes: Sequence[tuple[int, int, int]],
    picture: np.ndarray | None = None,
) -> list[Difference]:
    """Compares a file with the model in PyTorch, which is not prepared for export, at each size.

    `sizes` are `(B, H, W)` of images, to which `picture`, `(H, W, bands)` uint8 RGB, is stretched;
    without one, some are drawn.

    Raises:
        ExportError: They differ beyond rounding; says where.
    """
    found = []
    for number, size in enumerate(sizes):
        images = np.stack(
            [
                draw_example(*size[1:], plan.bands, 10 * number + i)
                if picture is None
                else resize_bilinear(picture, *size[1:])
                for i in range(size[0])
            ]
        )
        # Label maps are of the image's own size, which is another where images are resized.
        own = size[1:]
        if number and "size" in exported.metadata["inputs"]:
            own = (own[0] * 3 // 4, own[1] * 5 // 4)
        outputs = exported.run(images, own)
        difference = Difference(size, 0, {}, [])
        expected = run_eager(model, plan, images, own)
        for i, of_image in enumerate(expected):
            of_file = {name: value[i] for name, value in outputs.items()}
            if "mask_logits" in of_file:
                batch = {name: value[None] for name, value in of_file.items()}
                of_file = vars(exported.finish(batch, size[1:], size[1:]))
            compare(plan, of_file, of_image, difference)
        if difference.errors:
            raise ExportError(
                f"the exported file differs from the model at {size[0]} x {size[1]}x{size[2]}: "
                f"{'; '.join(difference.errors[:3])}. It was not kept"
            )
        found.append(difference)
    return found


def draw_example(height: int, width: int, bands: int, seed: int) -> np.ndarray:
    """A picture `(H, W, bands)` with something to find: bright and dark boxes on a soft ground."""
    rng = np.random.default_rng(seed)
    ground = np.linspace(0, 3, height)[:, None, None] + np.linspace(0, 4, width)[None, :, None]
    image = 110 + 40 * np.sin(ground + rng.uniform(0, 6, bands))
    for _ in range(12):
        top, left = rng.integers(0, height - 8), rng.integers(0, width - 8)
        bottom = top + rng.integers(8, max(height // 2, 9))
        right = left + rng.integers(8, max(width // 2, 9))
        image[top:bottom, left:right] = rng.uniform(0, 255, bands)
    return (image + rng.normal(0, 6, image.shape)).clip(0, 255).astype(np.uint8)


@torch.no_grad()
def run_eager(
    model: Any, plan: Plan, images: np.ndarray, own: tuple[int, int] | None = None
) -> list[dict[str, np.ndarray]]:
    """What the model itself finds in images `(B, H, W, bands)`, as a test would run it.

    Images are uint8, RGB, of the size that the model works at. Label maps have the size `own`, by
    default that of the images.
    """
    if plan.bands == 3 and not _reads_rgb(plan, model):
        images = images[..., ::-1]
    tensors = [torch.from_numpy(image.transpose(2, 0, 1).copy()) for image in images]
    if plan.task == "features":
        batch = model.data_preprocessor(dict(inputs=tensors), False)["inputs"]
        maps = model.extract_feat(batch) if plan.module.with_neck else model.backbone(batch)
        return [
            {f"level_{j}": level[i].numpy() for j, level in enumerate(maps)}
            for i in range(len(images))
        ]
    is_segmentor = plan.task == "semantic segmentation"
    kind = SegDataSample if is_segmentor else DetDataSample
    shape = images.shape[1:3]
    meta = dict(img_shape=shape, ori_shape=own or shape, pad_shape=shape, scale_factor=(1.0, 1.0))
    samples = [kind(metainfo=dict(meta)) for _ in images]
    samples = model.test_step(dict(inputs=tensors, data_samples=samples))
    if is_segmentor:
        maps = ((s.pred_sem_seg.data.squeeze(0), s.seg_logits.data) for s in samples)
        return [{"label_map": labels.numpy(), "logits": logits.numpy()} for labels, logits in maps]
    if plan.panoptic:
        found = [read_segments(s.pred_panoptic_seg, model.num_classes) for s in samples]
        return [{"segments": segments.ids, "labels": segments.labels} for segments in found]
    return [_read_instances(sample.pred_instances) for sample in samples]


def _reads_rgb(plan: Plan, model: Any) -> bool:
    """Whether the model's loader gives the order that files take."""
    preprocessor = model.data_preprocessor
    convert = getattr(preprocessor, "_channel_conversion", None)
    convert = preprocessor.channel_conversion if convert is None else convert
    return plan.module.image_input.flip_bands == bool(convert)


def _read_instances(found: Any) -> dict[str, np.ndarray]:
    arrays = {
        "boxes": found.bboxes.cpu().numpy(),
        "scores": found.scores.cpu().numpy(),
        "labels": found.labels.cpu().numpy(),
    }
    if "masks" in found:
        arrays["masks"] = np.asarray(found.masks.cpu())
    return arrays


def compare(plan: Plan, found: dict, expected: dict, difference: Difference) -> None:
    """Notes in `difference` how a file's outputs for an image differ from those of `run_eager`."""
    if "boxes" not in expected:
        for name, values in expected.items():
            if name in found and found[name].shape != values.shape:
                difference.errors.append(
                    f"{name} is of shape {found[name].shape}, the model's of {values.shape}"
                )
                return
    if "label_map" in expected:
        _compare_label_maps(found["label_map"], expected, difference)
    elif "segments" in expected:
        if not np.array_equal(found["labels"], expected["labels"]):
            difference.errors.append("the file has segments of other classes than the model")
        difference.compared += len(expected["labels"])
        wrong = float((found["segments"] != expected["segments"]).mean())
        _note(difference, "share of pixels", wrong, MAX_PIXELS)
    elif "boxes" in expected:
        _compare_detections(plan, found, expected, difference)
    else:
        for name, values in expected.items():
            largest = float(np.abs(values).max())
            shift = float(np.abs(found[name] - values).max()) / max(largest, 1e-12)
            difference.compared += 1
            _note(difference, "share of the largest value", shift, MAX_FEATURES)


def _note(difference: Difference, name: str, value: float, limit: float) -> None:
    if not value <= limit:  # also what is no number
        difference.errors.append(f"{name} differ by {value:.3g}, more than {limit:g}")
    difference.values[name] = max(difference.values.get(name, 0.0), value)


def _compare_label_maps(found: np.ndarray, expected: dict, difference: Difference) -> None:
    logits = expected["logits"]  # (C, H, W)
    wrong = found != expected["label_map"]
    difference.compared += wrong.size
    _note(difference, "share of pixels", float(wrong.mean()), MAX_PIXELS)
    if wrong.any() and len(logits) > 1:
        at_them = logits[:, wrong]
        taken = np.take_along_axis(at_them, found[wrong][None].astype(int), 0)[0]
        gap = float((at_them.max(0) - taken).max() / np.abs(logits).max())
        _note(difference, "gap to the largest logit there", gap, MAX_GAP)


def _compare_detections(plan: Plan, found: dict, expected: dict, difference: Difference) -> None:
    there = found["scores"] > 0
    is_full = len(expected["scores"]) >= len(there)
    found = {name: found[name][there] for name in expected}
    there = expected["scores"] > 0
    expected = {name: values[there] for name, values in expected.items()}
    pairs, missing = match(found, expected)
    # A full list ends somewhere among nearly equal scores: which of them is last is rounding. Where
    # it is not full, one detection may be on either side of the smallest score.
    lowest = expected["scores"].min(initial=1.0)
    spare = len(expected["scores"]) if is_full else 1
    at_the_end = expected["scores"][missing] - lowest < MAX_SCORE_SHIFT
    lost = len(missing) - min(int(at_the_end.sum()), spare)
    difference.compared += len(pairs)
    if lost:
        difference.errors.append(
            f"{lost} of {len(expected['scores'])} detections of the model are not in the file's"
        )
    surplus = np.setdiff1d(np.arange(len(found["scores"])), [f for f, _ in pairs])
    beyond = found["scores"][surplus] - lowest > MAX_SCORE_SHIFT
    if beyond.any() or len(surplus) > spare:
        difference.errors.append(f"the file has {len(surplus)} detections that the model has not")
    for f, e in pairs:
        shift = float(np.abs(found["boxes"][f] - expected["boxes"][e]).max())
        _note(difference, "boxes", shift, MAX_BOX_SHIFT)
        shift = float(abs(found["scores"][f] - expected["scores"][e]))
        _note(difference, "scores", shift, MAX_SCORE_SHIFT)
    if "masks" in expected and pairs:
        ours, theirs = (np.array(side) for side in zip(*pairs, strict=True))
        shape, threshold = expected["masks"].shape[1:], plan.mask_threshold
        masks = found["masks"][ours]
        if masks.dtype != bool:  # of boxes, not of images
            masks = paste_masks(masks, found["boxes"][ours], shape, threshold)
        wrong = (masks != expected["masks"][theirs]).sum((1, 2))
        area = np.maximum(expected["masks"][theirs].sum((1, 2)), 100)
        _note(difference, "share of mask pixels", float((wrong / area).max()), MAX_MASK_PIXELS)


def match(found: dict, expected: dict) -> tuple[list[tuple[int, int]], list[int]]:
    """Pairs detections of one label whose boxes are nearest, best scores first.

    Returns:
        Pairs of indices, found and expected; and indices of the expected ones without a partner.
    """
    free = np.ones(len(found["scores"]), bool)
    pairs, missing = [], []
    for e in np.argsort(-expected["scores"], kind="stable"):
        shift = np.abs(found["boxes"] - expected["boxes"][e]).max(1, initial=0.0)
        shift[~free | (found["labels"] != expected["labels"][e])] = np.inf
        f = int(shift.argmin()) if len(shift) else -1
        if f < 0 or shift[f] > 10 * MAX_BOX_SHIFT:
            missing.append(int(e))
        else:
            free[f] = False
            pairs.append((f, int(e)))
    return pairs, missing
