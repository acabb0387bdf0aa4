"""The check of a whole config: every data set of its loaders, and the model's class counts."""

import logging
from collections.abc import Sequence

from mmengine.config import Config
from mmengine.logging import print_log

from swin_mm.console import printable
from swin_mm.datasets.check.coco import check_coco
from swin_mm.datasets.check.heads import check_num_classes
from swin_mm.datasets.check.ignored import check_ignored, find_ignored
from swin_mm.datasets.check.inspection import SECONDS, Inspection
from swin_mm.datasets.check.objects import check_learned, check_scored
from swin_mm.datasets.check.panoptic import check_panoptic
from swin_mm.datasets.check.scoring import check_evaluator
from swin_mm.datasets.check.semantic import check_labels_learned, check_semantic
from swin_mm.datasets.check.source import Source, find_sources
from swin_mm.datasets.check.summary import (
    DatasetError,
    DatasetSummary,
    SplitSummary,
    examples,
    merge,
)

SPLITS = ("train", "val", "test")


def check_config(
    cfg: Config, splits: Sequence[str] = ("train", "val"), seconds: float = SECONDS
) -> DatasetSummary:
    """Checks the data of a config, so that a mistake shows before training and not after an hour.

    Built-in data is drawn first where it is not there. Nothing is built, and no setting changes.
    With several processes, one of them does it for all.

    Args:
        cfg: Whole config.
        splits: Which data loaders to check: those that will be used.
        seconds: Time limit for looking into the images of one data set; annotations and file names
            are always checked wholly.

    Returns:
        Counts and warnings; the warnings are also logged.

    Raises:
        DatasetError: The data cannot be used as it is; the message says what to do.
    """
    summary = look_over(cfg, splits, Inspection(seconds))
    for split in summary.distinct():
        for warning in split.warnings:
            print_log(printable(warning), "current", logging.WARNING)
    return summary


def look_over(cfg: Config, splits: Sequence[str], inspection: Inspection) -> DatasetSummary:
    """Checks the data of a config as closely as asked for.

    Args:
        cfg: Whole config.
        splits: Which data loaders to check.
        inspection: How closely to look, and what becomes of faults.

    Returns:
        Counts and warnings.

    Raises:
        DatasetError: What the inspection does not keep.
    """
    found = {split: find_sources(cfg, f"{split}_dataloader") for split in splits}
    found = {split: sources for split, sources in found.items() if sources}
    classes = _agree([source for sources in found.values() for source in sources], inspection)
    if classes:
        inspection.attempt(check_num_classes, cfg.get("model") or {}, classes)
    inspection.ignored = find_ignored(cfg)
    semantic = [s for group in found.values() for s in group if s.reads_like("BaseSegDataset")]
    if semantic:
        inspection.attempt(check_ignored, cfg, semantic)

    summaries: dict[str, SplitSummary] = {}
    for split, sources in found.items():
        settings = cfg[f"{split}_dataloader"]["dataset"]
        same = [s for s in summaries if cfg[f"{s}_dataloader"]["dataset"] == settings]
        if same:  # test data is often the validation data
            summaries[split] = summaries[same[0]]
        else:
            labelled = split != "test"
            parts = [inspection.attempt(_check_source, s, inspection, labelled) for s in sources]
            summaries[split] = merge([part or SplitSummary() for part in parts])
        _judge(cfg, split, sources, summaries[split], inspection)
    return DatasetSummary(classes, summaries)


def _judge(
    cfg: Config,
    split: str,
    sources: list[Source],
    summary: SplitSummary,
    inspection: Inspection,
) -> None:
    """Checks what the whole data of a loader must have: objects to learn or to score."""
    if split != "test":
        inspection.attempt(check_labels_learned, summary, f"{split}_dataloader")
    if split == "train":
        summary.warnings += inspection.attempt(check_learned, summary, "train_dataloader") or []
        return
    if split == "val":
        inspection.attempt(check_scored, summary, "val_dataloader")
    inspection.attempt(check_evaluator, cfg, split, sources, summary)


def _check_source(source: Source, inspection: Inspection, labelled: bool) -> SplitSummary:
    if hasattr(source.cls, "draw_if_missing"):
        try:
            source.cls.draw_if_missing(source.settings.get("data_root") or "")
        except ValueError as error:
            raise DatasetError(f"{source.where}: {error}") from None
    if source.reads_like("CocoDataset"):
        return check_coco(source, inspection, labelled)
    if source.reads_like("CocoPanopticDataset"):
        return check_panoptic(source, inspection, labelled)
    if source.reads_like("BaseSegDataset"):
        return check_semantic(source, inspection, labelled)
    return SplitSummary(
        warnings=[f"{source.where}: data of type {source.cls.__name__} is not checked"]
    )


def _agree(sources: list[Source], inspection: Inspection) -> tuple[str, ...]:
    """Returns the classes that all data sets have, as far as they name any."""
    named = [(source.where, inspection.attempt(source.classes)) for source in sources]
    named = [(where, classes) for where, classes in named if classes]
    for where, classes in named[1:]:
        inspection.attempt(_compare_classes, where, classes, *named[0])
    return named[0][1] if named else ()


def _compare_classes(
    where: str, classes: tuple[str, ...], first: str, wanted: tuple[str, ...]
) -> None:
    if classes != wanted:
        raise DatasetError(
            f"{where} has {len(classes)} classes, {examples(classes)}, but {first} has "
            f"{len(wanted)}, {examples(wanted)}; set {where}.metainfo.classes to the same"
        )
