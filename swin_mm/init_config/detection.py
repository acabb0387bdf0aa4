"""Decides what a detector's config for one's own data says, and writes it."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from statistics import median
from typing import Any

from mmengine.config import Config

from swin_mm.datasets.check.corrections import NO_CLASS, check_images_present, find_placeholders
from swin_mm.init_config import plan, recipe
from swin_mm.init_config.bands import survey_bands
from swin_mm.init_config.coco import (
    CocoPart,
    check_names,
    has_masks,
    make_usable,
    read_part,
    split_part,
)
from swin_mm.init_config.text import fill_template
from swin_mm.init_config.write import (
    Options,
    Written,
    check_out,
    common_root,
    place_below,
    write_config,
)

TINY_OBJECT = 8  # pixels a side, at the size trained on: two cells of the finest feature map
# With more objects in an image more regions are looked at, which takes time: the small model learns
# from 24 regions with objects in an image, two for each of twelve.
DENSE = 12


def init_detection(coco: Sequence[str], images: Sequence[str], options: Options) -> Written:
    """Writes a config that trains a detector on COCO annotations.

    Args:
        coco: Annotation files for training and validation; of one alone a part is split off.
        images: Folders of the images, for training and validation or for both; empty looks for
            them beside the annotations.
        options: Further choices.

    Raises:
        InitConfigError: No config can be written; the message says why.
        DatasetError: The data cannot be trained on.
    """
    check_out(options.out, options.force)
    folders: Sequence[str | None] = [*images, *images][:2] if images else [None, None]
    parts = [
        read_part(file, folder, options.match_names, options.merge_classes)
        for file, folder in zip(coco, folders, strict=False)
    ]
    return init_parts(parts, [], options)


def init_parts(
    parts: Sequence[CocoPart], notes: Sequence[str], options: Options, found_as: str = ""
) -> Written:
    """As `init_detection`, for annotations that have been read.

    Args:
        parts: Training and validation data; of one alone a part is split off.
        notes: What the user should know of them.
        options: Further choices.
        found_as: What data set they are of, in words.
    """
    check_out(options.out, options.force)
    name, base, title = recipe.choose_recipe(options, recipe.DETECTION)
    train, val, notes = _split(parts, list(notes), options)
    classes = check_names(train.content, str(train.file))
    for placeholder, why in find_placeholders(train.content).items():
        if not val.class_counts().get(placeholder):
            classes = tuple(name for name in classes if name != placeholder)
            notes.append(f"{placeholder!r} is no class: {why}")
    notes += [
        f"{name!r} has objects, so it is learned, though annotation tools write it for no class"
        for name in classes
        if name in NO_CLASS
    ]
    for part, split in ((train, "train"), (val, "val")):
        changes = make_usable(part, classes, options.beside(f"{split}.json"))
        notes += [f"{part.file.name} is a changed copy: {change}" for change in changes]
        names = [image["file_name"] for image in part.content["images"]]
        matching = f"--images {quote(part.images)} --match-names"
        remedy = "name their folder with --images"
        check_images_present(names, part.images, "--coco", remedy, matching)
    complete, found = has_masks((train, val))
    with_mask_head = "mask_head" in (base.model.get("roi_head") or {})
    with_masks = complete and with_mask_head
    if not with_masks:
        title = title.replace("Mask R-CNN", "Faster R-CNN")
    values = _fit(train, base, options)
    schedule, scale = values["schedule"], values["scale"]
    values["turning"], told = plan.choose_turning(values["bands"], (train, val))
    notes += [*told, *_doubts(train, val, classes, values["zoom"])]
    without_mask_head = with_mask_head and not with_masks
    if without_mask_head:
        base.model.roi_head.mask_head = None
    values.update(recipe.start_settings(options, base.model, len(classes)))
    text = fill_template(
        "detection.py.jinja",
        title=title,
        amount=f"{len(train.sizes())} images, {len(classes)} classes, {schedule.epochs} epochs",
        recipe=name,
        classes=classes,
        palette=plan.choose_palette(len(classes)),
        paths=_paths(train, val),
        with_masks=with_masks,
        without_mask_head=without_mask_head,
        annotation_type=_annotation_type(base, with_masks, options.preset),
        model=_model(base, values, options, without_mask_head),
        hooks=_hooks(values, with_masks),
        **values,
    )
    changed = [part for part in (train, val) if part.is_new]
    new_files = {part.file: json.dumps(part.content, ensure_ascii=False) for part in changed}
    return Written(
        config=options.out,
        files=write_config(options, text, new_files),
        data=f"{len(train.sizes())} training and {len(val.sizes())} validation images, "
        f"{len(classes)} classes, {found}",
        model=f"{title}, {schedule.epochs} epochs of {schedule.steps} steps, images fitted into "
        f"{scale[0]} x {scale[1]}",
        notes=[*notes, *filter(None, [values["start"]])],
        checkpoint=Path("work_dirs", options.out.stem, f"epoch_{schedule.epochs}.pth"),
        found=found_as,
    )


def _split(
    parts: Sequence[CocoPart], notes: list[str], options: Options
) -> tuple[CocoPart, CocoPart, list[str]]:
    if len(parts) == 2:
        return parts[0], parts[1], notes
    files = options.beside("train.json"), options.beside("val.json")
    train, val = split_part(parts[0], files, options.val_share)
    note = options.split_note(len(val.sizes()), f": {train.file.name}, {val.file.name}")
    return train, val, [*notes, note]


def _paths(train: CocoPart, val: CocoPart) -> dict[str, str]:
    paths: list[str | Path] = [train.file, val.file]
    paths += [folder for folder in (train.images, val.images) if folder]
    root = common_root(paths)
    return dict(
        root=root,
        train_file=place_below(root, train.file),
        train_images=place_below(root, train.images, is_folder=True),
        val_file=place_below(root, val.file),
        val_images=place_below(root, val.images, is_folder=True),
    )


def _fit(train: CocoPart, base: Config, options: Options) -> dict[str, Any]:
    """Chooses what depends on the training data: sizes, schedule, anchors, bands."""
    preset = options.preset
    zoom = plan.choose_zoom(train.sizes(), _middle_object(train), preset)
    scale = plan.choose_scale(train.sizes(), zoom, preset)
    count = train.images_with_objects()
    batch = options.batch or plan.choose_batch(scale, count, preset, zoom)
    least = base.train_cfg.max_epochs if preset == "full" else plan.MIN_EPOCHS_SMALL
    objects = Counter(a["image_id"] for a in train.content["annotations"])
    most_objects = max(objects.values())
    small_seen = f"{plan.SMALL_STEPS} x {batch}"
    return dict(
        out=options.out,
        preset=preset,
        base=base,
        all_flips=options.all_flips,
        unit="epochs",
        bands=survey_bands(train.image_files(), options.bands),
        zoom=zoom,
        scale=scale,
        least_side=max(plan.STEP, round(0.6 * scale[1] / plan.STEP) * plan.STEP),
        schedule=plan.plan_epochs(count, batch, preset, least),
        images_with_objects=count,
        images_seen=small_seen if preset == "small" else f"{plan.DETECTION_IMAGES_SEEN:,}",
        least_epochs=least,
        most_epochs=max(plan.MAX_EPOCHS[preset], least),
        ratios=plan.choose_ratios(train.object_shapes()),
        most_objects=most_objects,
        dense=most_objects > DENSE,
    )


def _middle_object(part: CocoPart) -> float:
    """Side of the middle object in the middle image, pixels: the root of its box's area."""
    sides = [math.sqrt(height * width) for height, width in part.object_shapes()]
    # Where no box has an area there is nothing to enlarge, and the check of the data will say so.
    return median(sides or [math.inf]) * median(max(size) for size in part.sizes())


def _annotation_type(base: Config, with_masks: bool, preset: str) -> str:
    """The step that keeps masks as polygons, where there are masks and the recipe uses it."""
    ours = "swin_mm.LoadAnnotations"
    types = [step.type for step in base.train_dataloader.dataset.get("pipeline") or ()]
    return ours if with_masks and (preset == "small" or ours in types) else "LoadAnnotations"


def _model(
    base: Config, values: dict[str, Any], options: Options, without_mask_head: bool
) -> dict[str, Any]:
    """Returns what the config changes in the recipe's model."""
    settings = recipe.class_settings(base.model)
    if options.preset == "small":
        settings = recipe.merge(settings, _small_regions(values["ratios"], values["dense"]))
    tested = recipe.merge(base.model.to_dict(), settings)
    thresholds = recipe.threshold_settings(tested, values["most_objects"])
    settings = recipe.merge(settings, dict(test_cfg=thresholds))
    if without_mask_head:
        settings["roi_head"].update(mask_roi_extractor=None, mask_head=None)
        if base.model.type == "MaskRCNN":
            settings = {"type": "FasterRCNN", **settings}
    return recipe.merge(recipe.input_settings(options, values["bands"]), settings)


def _small_regions(ratios: list[float], dense: bool) -> dict[str, Any]:
    """Widens what the small model limits: shapes of anchors, numbers of regions."""
    settings: dict[str, Any] = dict(
        rpn_head=dict(anchor_generator=dict(ratios=ratios)),
        test_cfg=dict(rpn=dict(max_per_img=100), rcnn=dict(max_per_img=100)),
    )
    if not dense:
        return settings
    more = dict(
        train_cfg=dict(
            rpn=dict(sampler=dict(num=256)),
            rpn_proposal=dict(nms_pre=1000, max_per_img=500),
            rcnn=dict(sampler=dict(num=128, pos_fraction=0.4)),
        ),
        test_cfg=dict(rpn=dict(nms_pre=1000, max_per_img=300, nms=dict(iou_threshold=0.8))),
    )
    return recipe.merge(settings, more)


def _hooks(values: dict[str, Any], with_masks: bool) -> dict[str, Any]:
    best = "coco/segm_mAP" if with_masks else "coco/bbox_mAP"
    hooks: dict[str, Any] = dict(
        logger=dict(interval=min(50, max(1, values["schedule"].steps))),
        checkpoint=dict(interval=recipe.Code("val_interval"), save_best=best, rule="greater"),
    )
    if values["bands"] is not None:
        hooks["visualization"] = dict(type="swin_mm.DetVisualizationHook")
    return hooks


def _doubts(train: CocoPart, val: CocoPart, classes: tuple[str, ...], zoom: float) -> list[str]:
    """Says what of the data may not go well."""
    notes = []
    for part, name in ((train, "training"), (val, "validation")):
        counts = part.class_counts()
        absent = [repr(label) for label in classes if not counts.get(label)]
        if absent:
            notes.append(f"no {name} object of class {', '.join(absent)}")
    empty = len(train.sizes()) - train.images_with_objects()
    if empty:
        notes.append(f"{empty} training images without objects are left out (filter_empty_gt)")
    if _middle_object(train) * zoom < TINY_OBJECT:
        notes.append(
            f"half of the objects are below {TINY_OBJECT} pixels at the size trained on: raise "
            "image_scale, or cut the images into tiles"
        )
    return notes
