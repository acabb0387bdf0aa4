"""Checks that data, padding, losses and metrics of a segmentor ignore the same label."""

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from swin_mm.configs import bare_type
from swin_mm.datasets.check.source import Source
from swin_mm.datasets.check.summary import DatasetError

DEFAULT = 255  # of everything in mmseg
METRICS = ("IoUMetric", "CityscapesMetric")
PADDING = ("Pad", "RandomRotate", "RandomMosaic")  # of label maps, with 255 unless told otherwise
KEYS = ("ignore_index", "seg_pad_val", "seg_pad_value")


def find_ignored(cfg: Config) -> int:
    """Returns the label that the losses of a segmentor ignore."""
    head = (cfg.get("model") or {}).get("decode_head") or {}
    head = head[-1] if isinstance(head, (list, tuple)) and head else head
    value = head.get("ignore_index", DEFAULT) if isinstance(head, dict) else DEFAULT
    return value if type(value) is int else DEFAULT


def check_ignored(cfg: Config, sources: list[Source]) -> None:
    """Checks that all settings name the same ignored label.

    Args:
        cfg: Whole config.
        sources: Its semantic data sets.

    Raises:
        DatasetError: They do not; the message names the keys.
    """
    wanted = find_ignored(cfg)
    others = {key: value for key, value in _settings(cfg, sources) if value != wanted}
    if not others:
        return
    if any(key.endswith(".reduce_zero_label") for key in others):
        remedy = "leave ignore_index and the padding of label maps at 255"
    else:
        remedy = "--cfg-options " + " ".join(f"{key}={wanted}" for key in others)
    listed = ", ".join(f"{key} stands for {value}" for key, value in others.items())
    raise DatasetError(
        f"the losses ignore the label {wanted} (ignore_index of model.decode_head), but "
        f"{listed}; one label must be ignored everywhere: {remedy}"
    )


def _settings(cfg: Config, sources: list[Source]) -> Iterator[tuple[str, Any]]:
    """Yields config path and value of all that names an ignored label, defaults included."""
    model = cfg.get("model") or {}
    for name in ("decode_head", "auxiliary_head"):
        heads = model.get(name) or []
        several = isinstance(heads, (list, tuple))
        for index, head in enumerate(heads if several else [heads]):
            path = f"model.{name}.{index}" if several else f"model.{name}"
            if head.get("ignore_index", DEFAULT) is not None:  # None: a loss that masks by itself
                yield f"{path}.ignore_index", head.get("ignore_index", DEFAULT)
    pads = model.get("data_preprocessor") or {}
    if pads.get("size") or pads.get("size_divisor"):
        yield "model.data_preprocessor.seg_pad_val", pads.get("seg_pad_val", DEFAULT)
    for split in ("val", "test"):
        metrics = cfg.get(f"{split}_evaluator") or []
        several = isinstance(metrics, (list, tuple))
        for index, metric in enumerate(metrics if several else [metrics]):
            if bare_type(metric) in METRICS:
                path = f"{split}_evaluator" + f".{index}" * several
                yield f"{path}.ignore_index", metric.get("ignore_index", DEFAULT)
    for source in sources:
        yield from _settings_of_data(source)


def _settings_of_data(source: Source) -> Iterator[tuple[str, Any]]:
    where, settings = source.where, source.settings
    if "ignore_index" in settings:  # mmseg stores it, and nothing reads it
        yield f"{where}.ignore_index", settings["ignore_index"]
    if source.argument("reduce_zero_label"):
        yield f"{where}.reduce_zero_label", DEFAULT  # 0 becomes 255
    for index, step in enumerate(settings.get("pipeline") or ()):
        path, name = f"{where}.pipeline.{index}", bare_type(step)
        for key in KEYS:
            if key in step:
                yield f"{path}.{key}", step[key]
        padding = step.get("pad_val")
        if name == "Pad" and isinstance(padding, dict) and "seg" in padding:
            yield f"{path}.pad_val.seg", padding["seg"]
        elif name in PADDING and "seg_pad_val" not in step:
            key = "pad_val.seg" if name == "Pad" else "seg_pad_val"
            yield f"{path}.{key}", DEFAULT
