"""Decides what a detector's config for one's own data says."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import Any

from mmengine.config import ConfigDict

from swin_mm.configs import bare_type
from swin_mm.datasets.check.corrections import NO_CLASS, find_placeholders
from swin_mm.init_config import plan, recipe
from swin_mm.init_config.coco import CocoPart, check_names, has_masks, make_usable, read_part
from swin_mm.init_config.draft import Draft
from swin_mm.init_config.options import Options, Written
from swin_mm.init_config.text import Code

DIRECTIONS = ["horizontal", "vertical", "diagonal"]
TINY_OBJECT = 8  # pixels a side, at the size trained on: two cells of the finest feature map
# With more objects in an image more regions are looked at, which takes time: the small model learns
# from 24 regions with objects in an image, two for each of twelve.
DENSE = 12
REGIONS = dict(test_cfg=dict(rpn=dict(max_per_img=100), rcnn=dict(max_per_img=100)))
MORE_REGIONS: dict[str, Any] = dict(
    train_cfg=dict(
        rpn=dict(sampler=dict(num=256)),
        rpn_proposal=dict(nms_pre=1000, max_per_img=500),
        rcnn=dict(sampler=dict(num=128, pos_fraction=0.4)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=1000, max_per_img=300, nms=dict(iou_threshold=0.8))),
)
# Of models that learn boxes alone.
TITLES_WITHOUT_MASKS = {"Mask R-CNN": "Faster R-CNN", "Mask RepPoints": "RepPoints"}


def init_detection(coco: Sequence[str], images: Sequence[str], options: Options) -> Written:
    """Writes a config that trains a detector on COCO annotations.

    Args:
        coco: Annotation files for training and validation; of one alone a part is split off.
        images: Folders of the images, for training and validation or for both; empty looks for
            them beside the annotations.
        options: Further choices.

    Raises:
        InitConfigError, DatasetError: No config can be written for this data.
    """
    draft = Draft(options, recipe.DETECTION)
    folders: Sequence[str | None] = [*images, *images][:2] if images else [None, None]
    parts = list(map(read_part, coco, folders))
    return write_detector(draft, parts)


def write_detector(draft: Draft, parts: Sequence[CocoPart]) -> Written:
    """Writes a config for training and validation data, or for one part that is to be split."""
    train, val = draft.train_and_val(parts)
    classes = _prepare(draft, train, val)
    draft.add_data(
        "Data. mmdet numbers classes in the order of the annotation file.",
        dict(classes=Code("classes"), palette="random"),
        classes,
        [train.file.parent, val.file.parent, train.images, val.images],
        train_file=train.file,
        train_images=train.images,
        val_file=val.file,
        val_images=val.images,
    )
    has_all_masks, objects = has_masks((train, val))
    without_masks = _settings_without_masks(draft.base.model)
    with_masks = bool(without_masks) and has_all_masks
    lacks_masks = bool(without_masks) and not with_masks
    if lacks_masks:
        draft.base.merge_from_dict(dict(model=without_masks))
        for old, new in TITLES_WITHOUT_MASKS.items():
            draft.title = draft.title.replace(old, new)
    draft.add_images((train, val))
    preset, count = draft.options.preset, train.images_with_objects()
    zoom = plan.choose_zoom(train.sizes(), _middle_object(train), preset)
    scale = plan.choose_scale(train.sizes(), zoom, preset)
    batch = draft.options.batch or plan.choose_batch(scale, count, preset, zoom)
    schedule = plan.plan_epochs(
        count, batch, preset, draft.base.train_cfg.max_epochs if draft.is_full else 0
    )
    if _middle_object(train) * zoom < TINY_OBJECT:
        draft.notes.append(
            f"half of the objects are below {TINY_OBJECT} pixels at the size trained on: raise "
            "image_scale, or cut the images into tiles"
        )
    _add_pipelines(draft, scale, zoom, with_masks)
    _add_loaders(draft, batch, with_masks)
    _add_model(draft, train, len(classes), without_masks if lacks_masks else {})
    decay = ",\n        milestones=[8 * max_epochs // 12, 11 * max_epochs // 12]"
    best = "coco/segm_mAP" if with_masks else "coco/bbox_mAP"
    draft.add_schedule(schedule, "epochs", decay if draft.is_full else "", save_best=best)
    images = len(train.sizes())
    return draft.write(
        amount=f"{images} images, {len(classes)} classes, {schedule.epochs} epochs",
        data=f"{images} training and {len(val.sizes())} validation images, {len(classes)} classes, "
        + objects,
        model=f"{schedule.epochs} epochs of {schedule.steps} steps, images fitted into "
        f"{scale[0]} x {scale[1]}",
        checkpoint=f"epoch_{schedule.epochs}.pth",
    )


def _prepare(draft: Draft, train: CocoPart, val: CocoPart) -> tuple[str, ...]:
    """Corrects what does not serve, in copies; returns the classes."""
    classes = check_names(train.content, str(train.file))
    for placeholder, why in find_placeholders(train.content).items():
        if not val.class_counts().get(placeholder):
            classes = tuple(name for name in classes if name != placeholder)
            draft.notes.append(f"{placeholder!r} is no class: {why}")
    draft.notes += [
        f"{name!r} has objects, so it is learned, though annotation tools write it for no class"
        for name in classes
        if name in NO_CLASS
    ]
    for part, split in ((train, "train"), (val, "val")):
        changes = make_usable(part, classes, draft.options.beside(f"{split}.json"))
        draft.notes += [f"{part.file.name} is a changed copy: {change}" for change in changes]
        if part.is_new:
            draft.files[part.file] = json.dumps(part.content, ensure_ascii=False)
    return classes


def _add_pipelines(draft: Draft, scale: tuple[int, int], zoom: float, with_masks: bool) -> None:
    text = "Long and short side that images are fitted into, pixels: the middle size of the data"
    if zoom > 1.05:
        text += ", enlarged for small objects or small images"
    draft.add(text + (", reduced." if zoom < 1 else "."), image_scale=scale)
    size: dict[str, Any] = dict(scale=Code("image_scale"), keep_ratio=True)
    resize = dict(type="RandomResize", ratio_range=(0.8, 1.25), **size)
    if draft.is_full:
        least = max(plan.STEP, round(0.6 * scale[1] / plan.STEP) * plan.STEP)
        sides = f"[({scale[0]}, side) for side in range({least}, {scale[1] + 1}, 32)]"
        text = "Training sizes: short sides of 0.6 to 1 of that, as the recipe's 480 to 800."
        draft.add(text, scales=Code(sides))
        resize = dict(type="RandomChoiceResize", scales=Code("scales"), keep_ratio=True)
    text, flip = "", dict[str, Any](type="RandomFlip", prob=0.75, direction=DIRECTIONS)
    if not draft.options.all_flips:
        flip = dict(type="RandomFlip", prob=0.5)
        text = "Pictures from above or through a microscope: flip them in every direction, "
        text += f"direction={DIRECTIONS}."
    steps = draft.base.train_dataloader.dataset.get("pipeline") or ()
    polygons = not draft.is_full or "swin_mm.LoadAnnotations" in [step.type for step in steps]
    kind = "swin_mm.LoadAnnotations" if with_masks and polygons else "LoadAnnotations"
    wanted = dict(with_bbox=True, **(dict(with_mask=True) if with_masks else {}))
    keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
    pack = dict(type="swin_mm.PackDetInputs")
    draft.add(
        text,
        train_pipeline=[draft.load, dict(type=kind, **wanted), resize, flip, pack],
        test_pipeline=[
            draft.load,
            dict(type="Resize", **size),
            dict(type="LoadAnnotations", **wanted),
            dict(type="PackDetInputs", meta_keys=keys),
        ],
    )


def _add_loaders(draft: Draft, batch: int, with_masks: bool) -> None:
    used = dict(filter_cfg=dict(filter_empty_gt=True, min_size=1))
    metric = dict(
        type="swin_mm.CocoMetric",
        ann_file=Code("data_root + val_file"),
        metric=["bbox", "segm"] if with_masks else "bbox",
    )
    draft.add_loaders(
        batch,
        lambda split: dict(
            type="CocoDataset",
            ann_file=Code(f"{split}_file"),
            data_prefix=dict(img=Code(f"{split}_images")),
            **(used if split == "train" else dict(test_mode=True)),
        ),
        val_evaluator=metric,
        test_evaluator=Code("val_evaluator"),
    )


def _settings_without_masks(model: ConfigDict) -> dict[str, Any]:
    """What makes a model that predicts masks one of boxes alone; empty where it is one."""
    if "mask_head" in (model.get("roi_head") or {}):
        kind = dict(type="FasterRCNN") if model.type == "MaskRCNN" else {}
        return dict(**kind, roi_head=dict(mask_roi_extractor=None, mask_head=None))
    if bare_type(model.get("bbox_head")) == "MaskRepPointsV2Head":
        return dict(bbox_head=dict(type="swin_mm.RepPointsV2Head"))
    return {}


def _add_model(draft: Draft, train: CocoPart, classes: int, without_masks: dict[str, Any]) -> None:
    base, text = draft.base.model, ""
    objects = Counter(a["image_id"] for a in train.content["annotations"])
    most_objects = max(objects.values())
    settings = recipe.merge(without_masks, recipe.class_settings(base))
    if not draft.is_full:
        settings = recipe.merge(settings, REGIONS)
        if most_objects > DENSE:
            text = f"Up to {most_objects} objects in an image: many regions are looked at."
            settings = recipe.merge(settings, MORE_REGIONS)
    tested = recipe.merge(base.to_dict(), settings)["test_cfg"]
    thresholds = dict(test_cfg=recipe.threshold_settings(tested, most_objects))
    settings = recipe.merge(settings, thresholds)
    if without_masks:
        text += " The data has no masks, so the mask head is left out."
    text += (
        " Tests keep detections of low score: average precision counts whatever is found. Raise "
        "score_thr to 0.05 where speed matters."
    )
    draft.add_model(text, settings, classes)


def _middle_object(part: CocoPart) -> float:
    """Side of the middle object in the middle image, pixels: the root of its box's area."""
    # Where no box has an area there is nothing to enlarge, and the check of the data will say so.
    sides = part.object_sides() or [math.inf]
    return median(sides) * median(max(size) for size in part.sizes())
