"""Several views of an image, or slices of a large one: how the model and data of a test change."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from mmengine.config import Config, ConfigDict

from swin_mm.configs import ConfigError, bare_type, find_scope, innermost_dataset, type_name

# Mirror images alone gain nothing for boxes, which are not averaged (docs/inference.md).
DETECTION_SCALES = (1.0, 1.2)
# As the published segmentation results with multi-scale testing, and mmseg's own configs.
SEGMENTATION_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


def use_test_time_augmentation(cfg: Config) -> None:
    """Changes a config so that the model merges several views of an image.

    The config may say how, as for mmdet and mmseg: `tta_model` and `tta_pipeline`. By default a
    detector sees the image and its mirror image in two scales, a segmentor in six.
    """
    dataset = innermost_dataset(cfg.test_dataloader.dataset)
    pipeline = list(dataset.pipeline)
    if find_scope(cfg) == "mmseg":
        cfg.setdefault("tta_model", dict(type="SegTTAModel"))
        cfg.setdefault("tta_pipeline", _views(pipeline, SEGMENTATION_SCALES))
        if bare_type(cfg.tta_model) == "SegTTAModel":
            # Takes the same arguments, and knows which models give probabilities.
            cfg.tta_model["type"] = "swin_mm.SegTTAModel"
    else:
        cfg.setdefault("tta_model", dict(type="DetTTAModel", tta_cfg=_merging(cfg.model)))
        cfg.setdefault("tta_pipeline", _views(pipeline, DETECTION_SCALES))
        if type_name(cfg.tta_model) == "DetTTAModel":
            # Takes the same arguments, merges boxes in the same way, and masks too.
            cfg.tta_model["type"] = "swin_mm.MaskTTAModel"
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    dataset.pipeline = cfg.tta_pipeline


def use_sliced_inference(cfg: Config, **settings: Any) -> None:
    """Changes a config so that the model predicts images in slices.

    The config may say how: `sliced_model`, with the arguments of `SlicedInference`, before which
    `settings` go.
    """
    if find_scope(cfg) == "mmseg":
        raise ConfigError(
            "--sliced joins instances; for semantic segmentation of large images use mmseg's own "
            "slices: --cfg-options model.test_cfg.mode=slide model.test_cfg.crop_size=512,512 "
            "model.test_cfg.stride=341,341"
        )
    dataset = innermost_dataset(cfg.test_dataloader.dataset)
    steps = deepcopy(list(dataset.pipeline))
    loading = [step for step in steps if bare_type(step).startswith("Load")]
    rest = [step for step in steps if not bare_type(step).startswith("Load")]
    sliced = {"type": "swin_mm.SlicedInference", **cfg.get("sliced_model", {}), **settings}
    sliced.update(module=cfg.model, pipeline=rest)
    cfg.model = ConfigDict(sliced)
    # The whole image is packed as it was loaded, with its annotations; slices have none.
    dataset.pipeline = [*loading, _pack_step(steps)]


def _merging(model: ConfigDict) -> dict[str, Any]:
    """How views of a detector are merged: as it merges its own boxes, where it does."""
    settings = model.get("test_cfg") or {}
    settings = settings.get("rcnn") or settings
    return dict(
        nms=settings.get("nms") or dict(type="nms", iou_threshold=0.5),
        max_per_img=settings.get("max_per_img", 100),
    )


def _views(pipeline: list[dict], scales: Sequence[float]) -> list[dict]:
    """The image and its mirror image in several scales of the size that the pipeline makes.

    The first view's annotations are kept, so the image as it is goes first where it is of the
    scales.
    """
    steps = deepcopy(pipeline)
    at = next((i for i, step in enumerate(steps) if bare_type(step) == "Resize"), None)
    if at is None:
        at = 1  # after the image is loaded
        steps.insert(at, dict(type="Resize", scale_factor=1.0, keep_ratio=True))
    *after, pack = steps[at + 1 :]
    if any(bare_type(step) == "Pad" and step.get("size") for step in after):
        scales = (1.0,)  # what is padded to one size cannot be larger
    sizes = [_rescale(steps[at], scale) for scale in scales]
    views = [sizes, _flips(), *([step] for step in after), [_with_flip_keys(pack)]]
    return [*steps[:at], dict(type="TestTimeAug", transforms=views)]


def _flips() -> list[dict]:
    return [dict(type="RandomFlip", prob=prob, direction="horizontal") for prob in (0.0, 1.0)]


def _rescale(resize: dict, scale: float) -> dict:
    """A `Resize` to another scale than that of a config."""
    key = "scale" if resize.get("scale") is not None else "scale_factor"
    size = resize.get(key) or 1.0
    if not isinstance(size, list | tuple):
        return dict(resize, **{key: type(size)(size * scale)})
    number = int if key == "scale" else float
    return dict(resize, **{key: tuple(number(side * scale) for side in size)})


def _with_flip_keys(pack: dict) -> dict:
    """The packing step, keeping how a view was flipped, as it does by default."""
    if "meta_keys" not in pack:
        return pack
    return dict(pack, meta_keys=(*pack["meta_keys"], "flip", "flip_direction"))


def _pack_step(steps: list[dict]) -> dict:
    """The step at the end of a pipeline that packs images for the model."""
    last = bare_type(steps[-1])
    if not last.startswith("Pack"):
        raise ConfigError(
            f"--sliced needs a test pipeline that ends in PackDetInputs, not in {last}"
        )
    return steps[-1]
