"""The largest image that a config trains on, read off its pipeline."""

from typing import Any

from mmengine.config import Config

from swin_mm.benchmark.work import Size
from swin_mm.configs import bare_type


def find_largest_size(cfg: Config) -> Size | None:
    """Finds the size of the largest batch of training, after padding.

    Args:
        cfg: Whole config of a detector or a segmentor.

    Returns:
        `(H, W)` in pixels, lying where images may lie or stand; `None` where the pipeline leaves
        images in the size they have.
    """
    loader = cfg.train_dataloader
    is_detector = cfg.default_scope == "mmdet"
    size = None
    for step in _list_steps(loader.dataset):
        size = _follow(step, size, is_detector)
    settings = cfg.model.get("data_preprocessor") or {}
    for augment in settings.get("batch_augments") or ():
        if bare_type(augment) == "BatchFixedSizePad":
            size = tuple(augment["size"])
    if settings.get("size"):  # mmseg pads to it
        size = _join(size, tuple(settings["size"]))
    if size is None:
        return None
    if is_detector and bare_type(loader.get("batch_sampler")) != "AspectRatioBatchSampler":
        size = (max(size), max(size))  # one that lies and one that stands may be in a batch
    divisor = settings.get("pad_size_divisor") or settings.get("size_divisor") or 1
    return tuple(-(-side // divisor) * divisor for side in size)


def _list_steps(dataset: dict) -> list[dict]:
    """The pipelines of a data set and of what is wrapped around it, in their order."""
    inner = dataset.get("dataset")
    members = [inner] if isinstance(inner, dict) else dataset.get("datasets") or []
    steps = [step for member in members for step in _list_steps(member)]
    return steps + list(dataset.get("pipeline") or ())


def _follow(step: dict, size: Size | None, is_detector: bool) -> Size | None:
    """The largest image after a step of a pipeline, of the largest one before it."""
    kind = bare_type(step)
    if kind == "RandomChoice":
        ends = []
        for branch in step["transforms"]:
            end = size
            for one in branch if isinstance(branch, list | tuple) else [branch]:
                end = _follow(one, end, is_detector)
            ends.append(end)
        return None if None in ends else max(ends, key=_area)
    if kind == "RandomChoiceResize":
        longest = step.get("max_size")  # of ResizeShortestEdge, whose scales are one side
        return max((_lying(scale, longest) for scale in step["scales"]), key=_area)
    if kind == "ResizeShortestEdge":
        return _lying(step["scale"], step.get("max_size"))
    if kind in ("Resize", "RandomResize"):
        return _resize(step)
    if kind == "RandomCrop":
        return _crop(step, size, is_detector)
    if kind == "Pad" and step.get("size"):
        width, height = step["size"]
        return _join(size, (height, width))
    return size


def _resize(step: dict) -> Size | None:
    scale = step.get("scale")
    if scale is None:  # by a factor
        return None
    if isinstance(scale, int):
        scale = (scale, scale)
    elif not isinstance(scale[0], int | float):  # a range
        scale = tuple(map(max, zip(*scale, strict=True)))
    factor = max(step.get("ratio_range") or (1.0,))
    width, height = (int(side * factor) for side in scale)
    return _lying((width, height), None) if step.get("keep_ratio") else (height, width)


def _crop(step: dict, size: Size | None, is_detector: bool) -> Size | None:
    if step.get("crop_type", "absolute") != "absolute":
        return size  # at most
    crop = step["crop_size"]
    crop = (crop, crop) if isinstance(crop, int) else tuple(crop)
    height, width = crop[::-1] if is_detector else crop
    if size is None:
        return height, width
    # The image may lie or stand.
    return min(max(size), height), min(max(size), width)


def _lying(scale: Any, longest: int | None) -> Size:
    """`(H, W)` of the largest image whose sides a scale limits, in either order."""
    if isinstance(scale, int):
        return (scale, longest or scale)
    return min(scale), max(scale)


def _join(size: Size | None, other: Size) -> Size:
    return other if size is None else (max(size[0], other[0]), max(size[1], other[1]))


def _area(size: Size) -> int:
    return size[0] * size[1]
