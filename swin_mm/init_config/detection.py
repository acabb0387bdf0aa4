"""Decides what a detector's config for one's own data says, and writes it."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from statistics import median

from mmengine.config import Config

from swin_mm.datasets.check.corrections import check_images_present, find_group_class
from swin_mm.init_config.bands import survey_bands
from swin_mm.init_config.coco import CocoPart, check_names, has_masks, make_usable, read_part
from swin_mm.init_config.coco import split_part as split_coco
from swin_mm.init_config.detection_text import DetectionPlan, detection_text
from swin_mm.init_config.plan import (
    choose_batch,
    choose_ratios,
    choose_scale,
    choose_zoom,
    plan_epochs,
)
from swin_mm.init_config.recipe import (
    DETECTION,
    check_method,
    find_recipe,
    find_small,
    load_recipe,
    read_title,
)
from swin_mm.init_config.write import Written, as_json, check_out, write_config

TINY_OBJECT = 8  # pixels a side, at the size trained on: two cells of the finest feature map


def init_detection(
    coco: Sequence[str],
    out: Path,
    images: Sequence[str] = (),
    method: str = "mask_rcnn",
    backbone: str = "tiny",
    preset: str = "full",
    val_share: float = 0.2,
    bands: Sequence[int] | None = None,
    all_flips: bool = False,
    batch: int | None = None,
    force: bool = False,
    match_names: bool = False,
    merge_classes: bool = False,
) -> Written:
    """Writes a config that trains a detector on COCO annotations.

    Args:
        coco: Annotation files for training and validation; of one alone a part is split off.
        out: The config to write.
        images: Folders of the images, for training and validation or for both; sought if empty.
        method: Such as `mask_rcnn`.
        backbone: `tiny`, `small`, `base`, `large`, or what follows `swin_` in a recipe's name.
        preset: `full` for a recipe, `small` for a model that trains on a CPU within minutes.
        val_share: What part of a single file is for validation.
        bands: Bands of the images to use; all by default.
        all_flips: Whether pictures may be turned over in any direction (microscopes, maps).
        batch: Images a step; by default what fits a GPU of 8 GiB.
        force: Whether to replace files that are there.
        match_names: Whether image names that are spelled otherwise are matched with files.
        merge_classes: Whether classes of one name are merged.

    Raises:
        InitConfigError: No config can be written; the message says why.
        DatasetError: The data cannot be trained on.
    """
    check_out(out, force)
    method = check_method(method, DETECTION)
    train, val, notes = _read(coco, images, out, val_share, match_names, merge_classes)
    classes = check_names(train.content, str(train.file))
    group = find_group_class(train.content)
    if group and not val.class_counts().get(group):
        classes = tuple(name for name in classes if name != group)
        notes.append(
            f"{group!r} is no class: it is the supercategory of all others, without objects"
        )
    for part, name in ((train, "train"), (val, "val")):
        changes = make_usable(part, classes, out.with_name(f"{out.stem}_{name}.json"))
        notes += [f"{part.file.name} is a changed copy: {change}" for change in changes]
        names = [image["file_name"] for image in part.content["images"]]
        matching = f"--images {quote(part.images)} --match-names"
        remedy = "name their folder with --images"
        check_images_present(names, part.images, "--coco", remedy, matching)
    recipe = find_small(method) if preset == "small" else find_recipe(method, backbone)
    base = load_recipe(recipe)
    complete, found = has_masks((train, val))
    with_masks = complete and "mask_head" in (base.model.get("roi_head") or {})
    found_bands = survey_bands(train.image_files(), bands)
    zoom = choose_zoom(train.sizes(), _middle_object(train), preset)
    scale = choose_scale(train.sizes(), zoom, preset)
    count = train.images_with_objects()
    batch = batch or choose_batch(scale, count, preset, zoom)
    published = 0 if preset == "small" else base.train_cfg.max_epochs
    plan = DetectionPlan(
        out=out,
        recipe=recipe,
        base=base,
        title=_title(base, preset, with_masks),
        preset=preset,
        classes=classes,
        train=train,
        val=val,
        with_masks=with_masks,
        bands=found_bands,
        scale=scale,
        zoom=zoom,
        ratios=choose_ratios(train.object_shapes()),
        schedule=plan_epochs(count, batch, preset, published),
        all_flips=all_flips,
        most_objects=max(Counter(a["image_id"] for a in train.content["annotations"]).values()),
    )
    notes += _doubts(plan)
    new_files = {p.file: as_json(p.content) for p in (train, val) if p.is_new}
    write_config(out, detection_text(plan), new_files, force)
    return Written(
        config=out,
        files=[*new_files, out],
        data=f"{len(train.sizes())} training and {len(val.sizes())} validation images, "
        f"{len(classes)} classes, {found}",
        model=f"{plan.title}, {plan.schedule.epochs} epochs of {plan.schedule.steps} steps, "
        f"images fitted into {scale[0]} x {scale[1]}",
        notes=notes,
        checkpoint=Path("work_dirs", out.stem, f"epoch_{plan.schedule.epochs}.pth"),
    )


def _read(
    coco: Sequence[str],
    images: Sequence[str],
    out: Path,
    share: float,
    match: bool,
    merge: bool,
) -> tuple[CocoPart, CocoPart, list[str]]:
    folders = [*images, *([images[-1]] if len(images) == 1 else [])] or [None, None]
    read = [read_part(file, f, match, merge) for file, f in zip(coco, folders, strict=False)]
    if len(coco) == 2:
        return read[0], read[1], []
    train, val = split_coco(read[0], out.parent.resolve(), out.stem, share)
    note = (
        f"{len(val.sizes())} images were split off for validation, by the hash of their names, so "
        f"always the same: {train.file.name}, {val.file.name}; split by hand if images belong "
        "together (frames of a film, tiles of a map)"
    )
    return train, val, [note]


def _middle_object(part: CocoPart) -> float:
    """Side of the middle object in the middle image, pixels: the root of its box's area."""
    sides = [math.sqrt(height * width) for height, width in part.object_shapes()]
    # Where no box has an area there is nothing to enlarge, and the check of the data will say so.
    return median(sides or [math.inf]) * median(max(size) for size in part.sizes())


def _title(base: Config, preset: str, with_masks: bool) -> str:
    title = "Mask R-CNN on a small Swin" if preset == "small" else read_title(base)
    return title if with_masks else title.replace("Mask R-CNN", "Faster R-CNN")


def _doubts(plan: DetectionPlan) -> list[str]:
    """Says what of the data may not go well."""
    notes = []
    for part, name in ((plan.train, "training"), (plan.val, "validation")):
        counts = part.class_counts()
        absent = [repr(label) for label in plan.classes if not counts.get(label)]
        if absent:
            notes.append(f"no {name} object of class {', '.join(absent)}")
    empty = len(plan.train.sizes()) - plan.train.images_with_objects()
    if empty:
        notes.append(f"{empty} training images without objects are left out (filter_empty_gt)")
    if _middle_object(plan.train) * plan.zoom < TINY_OBJECT:
        notes.append(
            f"half of the objects are below {TINY_OBJECT} pixels at the size trained on: raise "
            "image_scale, or cut the images into tiles"
        )
    return notes
