"""The text of a detector's config for one's own data."""

from dataclasses import dataclass
from typing import Any

from swin_mm.init_config.coco import CocoPart
from swin_mm.init_config.plan import (
    DETECTION_IMAGES_SEEN,
    MAX_EPOCHS,
    MIN_EPOCHS_SMALL,
    SMALL_STEPS,
    STEP,
    VALIDATIONS,
    choose_palette,
)
from swin_mm.init_config.recipe import class_overrides, merge_settings, threshold_overrides
from swin_mm.init_config.shared_text import (
    Plan,
    backbone_lines,
    loading,
    opening,
    recipe_optimizer_lines,
    small_optimizer_lines,
)
from swin_mm.init_config.text import Code, assign, comment
from swin_mm.init_config.write import common_root, place_below

SMALL_SCALES = (0.8, 1.25)  # of the size that images are fitted into
SMALL_RATE = 1.5e-3  # for four images a step
# Objects in an image, above which more regions are looked at, which takes time: the quick start's
# model learns from 24 regions with objects in an image, two for each of twelve.
DENSE = 12
META_KEYS = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")


@dataclass(frozen=True)
class DetectionPlan(Plan):
    """All that the text of the config depends on.

    Attributes:
        classes: Names in the order of the training file.
        train: Training data.
        val: Validation data.
        with_masks: Whether masks are trained and tested.
        zoom: What images are enlarged or reduced by, roughly.
        ratios: Height to width of the small model's anchors.
        most_objects: In one image.
    """

    classes: tuple[str, ...]
    train: CocoPart
    val: CocoPart
    with_masks: bool
    zoom: float
    ratios: list[float]
    most_objects: int


def detection_text(plan: DetectionPlan) -> str:
    """Writes the config."""
    amount = (
        f"{len(plan.train.sizes())} images, {len(plan.classes)} classes, "
        f"{plan.schedule.epochs} epochs"
    )
    blocks = [
        opening(plan, amount, "default_runtime.py"),
        _data(plan),
        _pipelines(plan),
        _loaders(plan),
        _model(plan),
        _schedule_small(plan) if plan.preset == "small" else _schedule_full(plan),
    ]
    return "\n\n".join(blocks) + "\n"


def _data(plan: DetectionPlan) -> str:
    paths = [plan.train.file, plan.val.file, *filter(None, (plan.train.images, plan.val.images))]
    root = common_root(paths)

    lines = [
        comment("Data. mmdet numbers classes in the order of the annotation file."),
        assign("classes", plan.classes),
        assign("num_classes", Code("len(classes)")),
        assign(
            "metainfo", dict(classes=Code("classes"), palette=choose_palette(len(plan.classes)))
        ),
        assign("data_root", root),
        assign("train_file", place_below(root, plan.train.file)),
        assign("train_images", place_below(root, plan.train.images, is_folder=True)),
        assign("val_file", place_below(root, plan.val.file)),
        assign("val_images", place_below(root, plan.val.images, is_folder=True)),
    ]
    return "\n".join(lines)


def _pipelines(plan: DetectionPlan) -> str:
    long, short = plan.scale
    load, lines = loading(plan)
    annotations: dict[str, Any] = dict(type="LoadAnnotations", with_bbox=True)
    if plan.with_masks:
        annotations["with_mask"] = True
    flip: dict[str, Any] = dict(type="RandomFlip", prob=0.5)
    if plan.all_flips:
        directions = ["horizontal", "vertical", "diagonal"]
        flip = dict(type="RandomFlip", prob=0.75, direction=directions)
    lines += [
        comment(
            "Long and short side that images are fitted into, pixels: chosen from the middle size "
            f"of the data{_zoom_words(plan.zoom)}."
        ),
        assign("image_scale", plan.scale),
    ]
    if plan.preset == "small":
        resize = dict(
            type="RandomResize",
            scale=Code("image_scale"),
            ratio_range=SMALL_SCALES,
            keep_ratio=True,
        )
    else:
        least = max(STEP, round(0.6 * short / STEP) * STEP)
        lines += [
            comment("Training sizes: short sides of 0.6 to 1 of that, as the recipe's 480 to 800."),
            assign(
                "scales", Code(f"[({long}, side) for side in range({least}, {short + 1}, {STEP})]")
            ),
        ]
        resize = dict(type="RandomChoiceResize", scales=Code("scales"), keep_ratio=True)
    if not plan.all_flips:
        lines.append(
            comment(
                "Pictures from above or through a microscope: flip them in every "
                'direction, direction=["horizontal", "vertical", "diagonal"].'
            )
        )
    polygons = {**annotations, "type": _annotation_type(plan)}
    train = [load, polygons, resize, flip, dict(type="swin_mm.PackDetInputs")]
    test = [
        load,
        dict(type="Resize", scale=Code("image_scale"), keep_ratio=True),
        annotations,
        dict(type="PackDetInputs", meta_keys=META_KEYS),
    ]
    return "\n".join([*lines, assign("train_pipeline", train), assign("test_pipeline", test)])


def _annotation_type(plan: DetectionPlan) -> str:
    """The step that leaves masks polygons, where there are masks and the recipe has it."""
    if plan.preset == "small":
        leaves_polygons = plan.with_masks
    else:
        steps = plan.base.train_dataloader.dataset.get("pipeline") or ()
        leaves_polygons = plan.with_masks and any(
            step.type == "swin_mm.LoadAnnotations" for step in steps
        )
    return "swin_mm.LoadAnnotations" if leaves_polygons else "LoadAnnotations"


def _zoom_words(zoom: float) -> str:
    if zoom > 1.05:  # less is lost in rounding
        return ", enlarged for small objects or small images"
    return ", reduced" if zoom < 1 else ""


def _loaders(plan: DetectionPlan) -> str:
    small = plan.preset == "small"

    def loader(split: str) -> dict[str, Any]:
        is_train = split == "train"
        dataset: dict[str, Any] = dict(
            type="CocoDataset",
            metainfo=Code("metainfo"),
            data_root=Code("data_root"),
            ann_file=Code(f"{split}_file"),
            data_prefix=dict(img=Code(f"{split}_images")),
        )
        if is_train:
            dataset["filter_cfg"] = dict(filter_empty_gt=True, min_size=1)
        else:
            dataset["test_mode"] = True
        dataset["pipeline"] = Code("train_pipeline" if is_train else "test_pipeline")
        settings: dict[str, Any] = dict(batch_size=Code("batch_size") if is_train else 1)
        if small:
            settings.update(num_workers=1, persistent_workers=True)
            settings["sampler"] = dict(type="DefaultSampler", shuffle=is_train)
        if small and is_train:
            settings["batch_sampler"] = dict(type="AspectRatioBatchSampler")
        return {**settings, "dataset": dataset}

    metric = ["bbox", "segm"] if plan.with_masks else "bbox"
    evaluator = dict(
        type="swin_mm.CocoMetric", ann_file=Code("data_root + val_file"), metric=metric
    )
    return "\n".join(
        [
            assign("batch_size", plan.schedule.batch) + "  # images a step on one GPU",
            assign("train_dataloader", loader("train")),
            assign("val_dataloader", loader("val")),
            "test_dataloader = val_dataloader",
            assign("val_evaluator", evaluator),
            "test_evaluator = val_evaluator",
        ]
    )


def _small_regions(plan: DetectionPlan) -> dict[str, Any]:
    """Widens what the quick start's model keeps small: shapes of anchors, numbers of regions."""
    settings: dict[str, Any] = dict(
        rpn_head=dict(anchor_generator=dict(ratios=plan.ratios)),
        test_cfg=dict(rpn=dict(max_per_img=100), rcnn=dict(max_per_img=100)),
    )
    if plan.most_objects <= DENSE:
        return settings
    dense = dict(
        train_cfg=dict(
            rpn=dict(sampler=dict(num=256)),
            rpn_proposal=dict(nms_pre=1000, max_per_img=500),
            rcnn=dict(sampler=dict(num=128, pos_fraction=0.4)),
        ),
        test_cfg=dict(rpn=dict(nms_pre=1000, max_per_img=300, nms=dict(iou_threshold=0.8))),
    )
    return merge_settings(settings, dense)


def _region_rule(plan: DetectionPlan) -> str:
    shapes = "square, as three of four objects nearly are"
    if len(plan.ratios) > 1:
        shapes = "of three shapes, as many objects are more than twice as long as wide"
    rule = f"Anchors are {shapes}."
    if plan.most_objects > DENSE:
        rule += f" Up to {plan.most_objects} objects in an image: many regions are looked at."
    return comment(rule)


def _model(plan: DetectionPlan) -> str:
    base = plan.base.model
    settings = class_overrides(base)
    lines = []
    if plan.preset == "small":
        settings = merge_settings(settings, _small_regions(plan))
        lines.append(_region_rule(plan))
    tested = merge_settings(base.to_dict(), settings)
    settings = merge_settings(
        settings, dict(test_cfg=threshold_overrides(tested, plan.most_objects))
    )
    if not plan.with_masks and "mask_head" in (base.get("roi_head") or {}):
        roi_head = {k: v for k, v in settings["roi_head"].items() if k != "mask_head"}
        roi_head.update(mask_roi_extractor=None, mask_head=None)
        kind = "FasterRCNN" if base.type == "MaskRCNN" else base.type
        settings = {"type": kind, **settings, "roi_head": roi_head}
        lines.append(comment("The data has no masks, so the mask head is left out."))
    first: dict[str, Any] = {}
    lines += backbone_lines(plan, first, "epochs")
    if plan.bands is not None:  # mmdet's own takes one or three bands
        first["data_preprocessor"] = {
            "type": "swin_mm.DetDataPreprocessor",
            **first["data_preprocessor"],
        }
    lines.append(
        comment(
            "Tests keep detections of low score: average precision counts whatever is found. Raise "
            "score_thr to 0.05 where speed matters."
        )
    )
    lines.append(assign("model", merge_settings(first, settings)))
    return "\n".join(lines)


def _schedule_rule(plan: DetectionPlan, least: int) -> list[str]:
    schedule, count = plan.schedule, plan.train.images_with_objects()
    seen, most = f"{DETECTION_IMAGES_SEEN:,}", max(MAX_EPOCHS[plan.preset], least)
    if plan.preset == "small":
        seen = f"{SMALL_STEPS} x {schedule.batch}"
    return [
        comment(
            f"Schedule: {seen} images are to be seen, within {least} to {most} epochs: "
            f"{seen} / {count} images, so {schedule.epochs} epochs of {schedule.steps} steps. "
            f"Warm-up: at most a tenth of all steps. Validated {VALIDATIONS} times."
        ),
        assign("max_epochs", schedule.epochs),
        assign("val_interval", schedule.val_interval),
    ]


def _hooks(plan: DetectionPlan) -> dict[str, Any]:
    best = "coco/segm_mAP" if plan.with_masks else "coco/bbox_mAP"
    hooks: dict[str, Any] = dict(
        logger=dict(interval=min(50, max(1, plan.schedule.steps))),
        checkpoint=dict(interval=Code("val_interval"), save_best=best, rule="greater"),
    )
    if plan.bands is not None:
        hooks["visualization"] = dict(type="swin_mm.DetVisualizationHook")
    return hooks


def _schedule_full(plan: DetectionPlan) -> str:
    published = plan.base.train_cfg.max_epochs
    scheduler = [
        dict(
            type="LinearLR",
            start_factor=0.001,
            by_epoch=False,
            begin=0,
            end=plan.schedule.warmup,
        ),
        dict(
            type="MultiStepLR",
            by_epoch=True,
            begin=0,
            end=Code("max_epochs"),
            milestones=Code("[max_epochs * 8 // 12, max_epochs * 11 // 12]"),
            gamma=0.1,
        ),
    ]
    return "\n".join(
        [
            *_schedule_rule(plan, published),
            assign(
                "train_cfg", dict(max_epochs=Code("max_epochs"), val_interval=Code("val_interval"))
            ),
            assign("param_scheduler", scheduler),
            *recipe_optimizer_lines(plan),
            assign("default_hooks", _hooks(plan)),
        ]
    )


def _schedule_small(plan: DetectionPlan) -> str:
    scheduler = [
        dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=plan.schedule.warmup),
        dict(
            type="CosineAnnealingLR",
            begin=0,
            end=Code("max_epochs"),
            eta_min=1e-5,
            by_epoch=True,
            convert_to_iter_based=True,
        ),
    ]
    loop = dict(
        type="EpochBasedTrainLoop",
        max_epochs=Code("max_epochs"),
        val_interval=Code("val_interval"),
    )
    return "\n".join(
        [
            *_schedule_rule(plan, MIN_EPOCHS_SMALL),
            assign("train_cfg", loop),
            assign("val_cfg", dict(type="ValLoop")),
            assign("test_cfg", dict(type="TestLoop")),
            assign("param_scheduler", scheduler),
            *small_optimizer_lines(SMALL_RATE),
            assign("default_hooks", _hooks(plan)),
        ]
    )
