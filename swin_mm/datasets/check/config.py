"""The checks of a whole config: every data set of its loaders, and the model's class counts."""

import logging
import os
from collections.abc import Sequence

from mmengine.config import Config
from mmengine.logging import print_log

from swin_mm.datasets.check.coco import check_coco
from swin_mm.datasets.check.inspection import Inspection
from swin_mm.datasets.check.objects import check_learned, check_scored
from swin_mm.datasets.check.semantic import check_labels_learned, check_semantic
from swin_mm.datasets.check.settings import (
    check_evaluator,
    check_ignored,
    check_num_classes,
    check_sliding,
    find_ignored,
)
from swin_mm.datasets.check.source import Source, find_sources
from swin_mm.datasets.check.summary import (
    DatasetError,
    DatasetSummary,
    SplitSummary,
    examples,
    merge,
)
from swin_mm.text import printable

MOST_THREADS = 8  # that read files


def check_config(
    cfg: Config,
    splits: Sequence[str] = ("train", "val"),
    log: bool = True,
) -> DatasetSummary:
    """Checks the data of a config, so that a mistake shows before training and not after an hour.

    Built-in data is drawn first where it is not there. Nothing is built, and no setting changes.
    With several processes, one of them does it for all. Annotations and file names are checked
    wholly, images as far as the time allows.

    Args:
        cfg: Whole config.
        splits: Which data loaders to check: those that will be used.
        log: Whether to log the warnings.

    Returns:
        Counts and warnings.

    Raises:
        DatasetError: The data cannot be used as it is; the message says what to do.
    """
    summary = _check(cfg, splits, Inspection())
    for warning in summary.warnings() if log else ():
        print_log(printable(warning), "current", logging.WARNING)
    return summary


def inspect_config(
    cfg: Config,
    splits: Sequence[str] = ("train", "val", "test"),
) -> Inspection:
    """Checks all data of a config, going on after errors; as `check_config` otherwise.

    Returns:
        Counts and warnings in its `summary`, `faults` and `unreadable`.

    Raises:
        DatasetError: The config itself is such that nothing can be checked.
    """
    everything = float("inf")
    inspection = Inspection(
        seconds=everything,
        thorough=True,
        threads=min(MOST_THREADS, os.cpu_count() or 1),
        decoded=everything,
        label_maps=everything,
    )
    inspection.summary = _check(cfg, splits, inspection)
    if not inspection.summary.splits:
        raise DatasetError(
            f"the config has no data to check: none of {', '.join(splits)}_dataloader has a dataset"
        )
    return inspection


def _check(cfg: Config, splits: Sequence[str], inspection: Inspection) -> DatasetSummary:
    found = {split: find_sources(cfg, f"{split}_dataloader") for split in splits}
    found = {split: sources for split, sources in found.items() if sources}
    every = [source for sources in found.values() for source in sources]
    classes = _agree(every, inspection)
    if classes:
        inspection.attempt(check_num_classes, cfg.get("model") or {}, classes)
    inspection.attempt(check_sliding, cfg.get("model") or {})
    inspection.ignored = find_ignored(cfg)
    inspection.attempt(check_ignored, cfg, [source for source in every if source.loads_maps()])

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
        _check_loader(cfg, split, sources, summaries[split], inspection)
    return DatasetSummary(classes, summaries)


def _check_loader(
    cfg: Config,
    split: str,
    sources: list[Source],
    summary: SplitSummary,
    inspection: Inspection,
) -> None:
    """Checks what the whole data of a loader must have: objects to learn or to score."""
    where = f"{split}_dataloader"
    if split != "test":
        inspection.attempt(check_labels_learned, summary, where)
    if split == "train":
        summary.warnings += inspection.attempt(check_learned, summary, where) or []
    elif split == "val":
        inspection.attempt(check_scored, summary, where)
    if split != "train" and len(sources) == 1 and sources[0].reads_like("CocoDataset"):
        inspection.attempt(check_evaluator, cfg, split, sources[0], summary)


def _check_source(source: Source, inspection: Inspection, labelled: bool) -> SplitSummary:
    if hasattr(source.cls, "draw_if_missing"):
        try:
            source.cls.draw_if_missing(source.settings.get("data_root") or "")
        except ValueError as error:
            raise DatasetError(f"{source.where}: {error}") from None
    checks = {
        "CocoDataset": check_coco,
        "CocoPanopticDataset": check_coco,
        "BaseSegDataset": check_semantic,
    }
    check = next((check for base, check in checks.items() if source.reads_like(base)), None)
    if check is None:
        note = f"{source.where}: data of type {source.cls.__name__} is not checked"
    elif source.is_remote():
        note = f"{source.where}: files on a server are not checked"
    else:
        return check(source, inspection, labelled)
    return SplitSummary(warnings=[note])


def _agree(sources: list[Source], inspection: Inspection) -> tuple[str, ...]:
    """Returns the classes that all data sets have, as far as they name any."""
    named = [(source.where, inspection.attempt(source.classes)) for source in sources]
    named = [(where, classes) for where, classes in named if classes]
    if not named:
        return ()
    first, wanted = named[0]
    for where, classes in named[1:]:
        if classes != wanted:
            inspection.refuse(
                f"{where} has {len(classes)} classes, {examples(classes)}, but {first} has "
                f"{len(wanted)}, {examples(wanted)}; set {where}.metainfo.classes to the same"
            )
    return wanted
