"""Compares a config's settings of model, padding and metrics with its data."""

import os
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from swin_mm.configs import bare_type
from swin_mm.datasets.check.source import Source
from swin_mm.datasets.check.summary import DatasetError, SplitSummary

# Their num_classes, where they have one, does not count the data's classes: backbones keep a
# classifier's, proposal heads tell objects from the rest, a semantic head labels stuff.
UNRELATED = frozenset(
    {"backbone", "data_preprocessor", "init_cfg", "neck", "rpn_head", "semantic_head"}
)
IGNORED = 255  # the ignored label of everything in mmseg, unless told otherwise
METRICS = ("IoUMetric", "CityscapesMetric")
PADDING = ("Pad", "RandomRotate", "RandomMosaic")  # of label maps
IGNORED_KEYS = ("ignore_index", "seg_pad_val", "seg_pad_value", "seg_ignore_label")
FIXED = (".reduce_zero_label", ".LoadPanopticAnnotations")  # no option changes these
NONE_IGNORED = -100  # of mmdet's losses by default


def check_num_classes(model: dict, classes: tuple[str, ...]) -> None:
    """Checks that every head predicts as many classes as the data has."""
    counts = find_num_classes(model, "model")
    wrong = {path: count for path, count in counts if count != len(classes)}
    if wrong:
        heads = ", ".join(f"{path}={count}" for path, count in wrong.items())
        options = " ".join(f"{path}={len(classes)}" for path in wrong)
        raise DatasetError(
            f"{heads} but the data set has {len(classes)} classes: --cfg-options {options}"
        )


def check_sliding(model: dict) -> None:
    """Checks that the sliding windows of a segmentor cover an image, before the first validation.

    mmseg's segmentor would end in a bare assertion.
    """
    test_cfg = model.get("test_cfg") or {}
    if test_cfg.get("mode") != "slide":
        return
    from swin_mm.heads.segmentors.encoder_decoder import check_windows

    try:
        check_windows(test_cfg)
    except ValueError as error:
        raise DatasetError(f"model.{error}") from None


def find_num_classes(settings: Any, path: str) -> Iterator[tuple[str, int]]:
    """Walks settings; yields the config path and value of each `num_classes` of a head."""
    children: Any = ()
    if isinstance(settings, dict):
        if isinstance(settings.get("num_classes"), int):
            yield f"{path}.num_classes", settings["num_classes"]
        children = [(key, value) for key, value in settings.items() if key not in UNRELATED]
    elif isinstance(settings, list | tuple):
        children = enumerate(settings)
    for key, value in children:
        yield from find_num_classes(value, f"{path}.{key}")


def find_ignored(cfg: Config) -> int:
    """Returns the label that the losses of a model ignore."""
    *_, (_, value) = [("", IGNORED), *_ignored_by_losses(cfg.get("model") or {})]
    return value if type(value) is int else IGNORED


def check_ignored(cfg: Config, sources: list[Source]) -> None:
    """Checks that data, padding, losses and metrics ignore the same label in label maps."""
    wanted = find_ignored(cfg)
    losses = [*_ignored_by_losses(cfg.get("model") or {})]
    found = [*losses, *_ignored_around(cfg), *(p for s in sources for p in _ignored_by_data(s))]
    others = {key: value for key, value in found if value != wanted}
    if not losses or not others:
        return
    remedy = "--cfg-options " + " ".join(f"{key}={wanted}" for key in others)
    if not 0 <= wanted <= 255 or any(key.endswith(FIXED) for key in others):  # maps are of bytes
        remedy = f"keep {losses[-1][0]} and the padding of label maps at {IGNORED}"
    listed = ", ".join(f"{key} stands for {value}" for key, value in others.items())
    raise DatasetError(
        f"the losses ignore the label {wanted} ({losses[-1][0]}), but {listed}; one label must be "
        f"ignored everywhere: {remedy}"
    )


def _parts(settings: dict, name: str, path: str = "") -> Iterator[tuple[str, dict]]:
    """Yields config path and settings of a part that may be one or a list of several."""
    part = settings.get(name) or []
    if isinstance(part, list | tuple):
        yield from ((f"{path}{name}.{index}", one) for index, one in enumerate(part))
    else:
        yield f"{path}{name}", part


def _ignored_by_losses(model: dict) -> Iterator[tuple[str, Any]]:
    """Yields config path and value of each ignored label of heads, that of the main one last."""
    for name in ("auxiliary_head", "decode_head"):
        for path, head in _parts(model, name, "model."):
            if head.get("ignore_index", IGNORED) is not None:  # None: a loss that masks by itself
                yield f"{path}.ignore_index", head.get("ignore_index", IGNORED)
    for owner, where in ((model.get("roi_head") or {}, "model.roi_head."), (model, "model.")):
        for path, head in _parts(owner, "semantic_head", where):  # of mmdet
            by_default = -1 if bare_type(head) == "PanopticFPNHead" else IGNORED
            loss = head.get("loss_seg") or {"ignore_index": by_default}
            if head.get("ignore_label"):
                yield f"{path}.ignore_label", head["ignore_label"]
            else:
                yield f"{path}.loss_seg.ignore_index", loss.get("ignore_index", NONE_IGNORED)


def _ignored_around(cfg: Config) -> Iterator[tuple[str, Any]]:
    """Yields config path and value of each ignored label in padding and metrics, defaults too."""
    pads = (cfg.get("model") or {}).get("data_preprocessor") or {}
    if pads.get("size") or pads.get("size_divisor"):  # of mmseg
        yield "model.data_preprocessor.seg_pad_val", pads.get("seg_pad_val", IGNORED)
    if pads.get("pad_seg"):  # of mmdet
        yield "model.data_preprocessor.seg_pad_value", pads.get("seg_pad_value", IGNORED)
    for name in ("val_evaluator", "test_evaluator"):
        for path, metric in _parts(cfg, name):
            if bare_type(metric) in METRICS:
                yield f"{path}.ignore_index", metric.get("ignore_index", IGNORED)


def _ignored_by_data(source: Source) -> Iterator[tuple[str, Any]]:
    where, settings = source.where, source.settings
    if "ignore_index" in settings:  # mmseg stores it, and nothing reads it
        yield f"{where}.ignore_index", settings["ignore_index"]
    if source.argument("reduce_zero_label"):
        yield f"{where}.reduce_zero_label", IGNORED  # 0 becomes 255
    for index, step in enumerate(settings.get("pipeline") or ()):
        path, name = f"{where}.pipeline.{index}", bare_type(step)
        if name == "LoadPanopticAnnotations":
            yield f"{path}.{name}", IGNORED
        for key in IGNORED_KEYS:
            if key in step:
                yield f"{path}.{key}", step[key]
        padding = step.get("pad_val")
        if name == "Pad" and isinstance(padding, dict) and "seg" in padding:
            yield f"{path}.pad_val.seg", padding["seg"]
        elif name in PADDING and "seg_pad_val" not in step:
            yield f"{path}.{'pad_val.seg' if name == 'Pad' else 'seg_pad_val'}", IGNORED


def check_evaluator(cfg: Config, split: str, source: Source, summary: SplitSummary) -> None:
    """Checks that COCO metrics score against the data that is predicted on, and can read it."""
    data = source.ann_file()
    for key, evaluator in _parts(cfg, f"{split}_evaluator"):
        used = evaluator.get("ann_file")
        if bare_type(evaluator) != "CocoMetric" or not used:
            continue
        if os.path.realpath(used) != os.path.realpath(data):
            raise DatasetError(
                f"{key}.ann_file={used} is not the file that {split}_dataloader reads, {data}: "
                f"--cfg-options {key}.ann_file={data}"
            )
        kind = evaluator["type"]
        if (kind if isinstance(kind, str) else kind.__module__).startswith("swin_mm."):
            continue
        metrics = evaluator.get("metric", "bbox")
        scores_masks = "segm" in ([metrics] if isinstance(metrics, str) else metrics)
        kinds = ("bbox", "segm") if scores_masks else ("bbox",)
        if wrong := [summary.unscorable[kind] for kind in kinds if kind in summary.unscorable]:
            raise DatasetError(
                f"{data}: {'; also, '.join(wrong)}; mmdet's CocoMetric cannot score that: "
                f"--cfg-options {key}.type=swin_mm.CocoMetric"
            )
