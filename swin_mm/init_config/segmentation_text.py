"""The text of a segmentor's config for one's own data."""

from dataclasses import dataclass
from typing import Any

from swin_mm.init_config.plan import SEGMENTATION_EPOCHS, SEGMENTATION_STEPS, VALIDATIONS
from swin_mm.init_config.recipe import class_overrides, merge_settings
from swin_mm.init_config.semantic import Labels, SemanticPart
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

SMALL_RATE = 1e-3  # for four images a step


@dataclass(frozen=True)
class SegmentationPlan(Plan):
    """All that the text of the config depends on.

    Attributes:
        labels: Classes, and how label maps are read.
        palette: Colour of each class.
        train: Training data.
        val: Validation data.
        crop: Side of the square that is trained on.
    """

    labels: Labels
    palette: list[tuple[int, int, int]]
    train: SemanticPart
    val: SemanticPart
    crop: int


def segmentation_text(plan: SegmentationPlan) -> str:
    """Writes the config."""
    amount = (
        f"{len(plan.train.names)} images, {len(plan.labels.classes)} classes, "
        f"{plan.schedule.steps} steps"
    )
    blocks = [
        opening(plan, amount, "default_runtime_seg.py"),
        _data(plan),
        _pipelines(plan),
        _loaders(plan),
        _model(plan),
        _schedule(plan),
    ]
    return "\n\n".join(blocks) + "\n"


def _data(plan: SegmentationPlan) -> str:
    parts = (("train", plan.train), ("val", plan.val))
    root = common_root([path for _, part in parts for path in (part.images, part.masks)])
    lines = [
        comment(f"Data. {plan.labels.explanation}"),
        assign("classes", plan.labels.classes),
        assign("num_classes", Code("len(classes)")),
        assign("metainfo", dict(classes=Code("classes"), palette=plan.palette)),
        assign("data_root", root),
    ]
    for name, part in parts:
        folders = dict(
            img_path=place_below(root, part.images), seg_map_path=place_below(root, part.masks)
        )
        lines.append(assign(f"{name}_folders", folders))
        if part.list_file:
            lines.append(assign(f"{name}_list", place_below(root, part.list_file)))
    return "\n".join(lines)


def _pipelines(plan: SegmentationPlan) -> str:
    load, lines = loading(plan)
    light = "PhotoMetricDistortion" if plan.bands is None else "swin_mm.RandomBandGain"
    flips = [dict(type="RandomFlip", prob=0.5)]
    if plan.all_flips:
        flips = [
            dict(type="RandomFlip", prob=0.5, direction=way) for way in ("horizontal", "vertical")
        ]
    lines += [
        comment(
            "Long and short side that images are fitted into, pixels: chosen from the middle size "
            "of the data. Crops of crop_size are trained on."
        ),
        assign("image_scale", plan.scale),
        assign("crop_size", (plan.crop, plan.crop)),
    ]
    resize = dict(type="Resize", scale=Code("image_scale"), keep_ratio=True)
    train = [
        load,
        dict(type="LoadAnnotations"),
        dict(
            type="RandomResize", scale=Code("image_scale"), ratio_range=(0.5, 2.0), keep_ratio=True
        ),
        dict(type="RandomCrop", crop_size=Code("crop_size"), cat_max_ratio=0.75),
        *flips,
        dict(type=light),
        dict(type="swin_mm.PackSegInputs"),
    ]
    test = [load, resize, dict(type="LoadAnnotations"), dict(type="PackSegInputs")]
    lines += [assign("train_pipeline", train), assign("test_pipeline", test)]
    if "tta_pipeline" in plan.base:
        scales = Code(
            '[\n                dict(\n                    type="Resize",\n'
            "                    scale=tuple(int(side * r) for side in image_scale),\n"
            "                    keep_ratio=True,\n                )\n"
            "                for r in (0.75, 1.0, 1.25)\n            ]"
        )
        views = [
            scales,
            [dict(type="RandomFlip", prob=0.0), dict(type="RandomFlip", prob=1.0)],
            [dict(type="LoadAnnotations")],
            [dict(type="PackSegInputs")],
        ]
        lines.append(assign("tta_pipeline", [load, dict(type="TestTimeAug", transforms=views)]))
    return "\n".join(lines)


def _loaders(plan: SegmentationPlan) -> str:
    small = plan.preset == "small"

    def loader(split: str) -> dict[str, Any]:
        is_train = split == "train"
        part = plan.train if is_train else plan.val
        dataset: dict[str, Any] = {} if small else dict(_delete_=True)
        dataset.update(
            type="BaseSegDataset",
            metainfo=Code("metainfo"),
            data_root=Code("data_root"),
            data_prefix=Code(f"{split}_folders"),
        )
        if part.list_file:
            dataset["ann_file"] = Code(f"{split}_list")
        dataset.update(
            img_suffix=part.image_suffix,
            seg_map_suffix=part.mask_suffix,
            reduce_zero_label=plan.labels.reduce_zero_label,
            pipeline=Code("train_pipeline" if is_train else "test_pipeline"),
        )
        settings: dict[str, Any] = dict(batch_size=Code("batch_size") if is_train else 1)
        if small:
            settings.update(num_workers=1, persistent_workers=True)
            kind = "InfiniteSampler" if is_train else "DefaultSampler"
            settings["sampler"] = dict(type=kind, shuffle=is_train)
        return {**settings, "dataset": dataset}

    lines = [
        assign("batch_size", plan.schedule.batch) + "  # crops a step on one GPU",
        assign("train_dataloader", loader("train")),
        assign("val_dataloader", loader("val")),
        "test_dataloader = val_dataloader",
    ]
    if small:
        lines.append(assign("val_evaluator", dict(type="IoUMetric", iou_metrics=["mIoU"])))
        lines.append("test_evaluator = val_evaluator")
    return "\n".join(lines)


def _model(plan: SegmentationPlan) -> str:
    first: dict[str, Any] = dict(data_preprocessor=dict(size=Code("crop_size")))
    lines = backbone_lines(plan, first, "steps")
    settings = merge_settings(first, class_overrides(plan.base.model))
    return "\n".join([*lines, assign("model", settings)])


def _schedule(plan: SegmentationPlan) -> str:
    schedule, epochs = plan.schedule, SEGMENTATION_EPOCHS[plan.preset]
    least, most = SEGMENTATION_STEPS[plan.preset]
    small = plan.preset == "small"
    warmup = dict(
        type="LinearLR",
        start_factor=0.01 if small else 1e-6,
        by_epoch=False,
        begin=0,
        end=schedule.warmup,
    )
    loop = dict(max_iters=Code("max_iters"), val_interval=Code("val_interval"))
    hooks = dict(
        logger=dict(interval=50),
        checkpoint=dict(interval=Code("val_interval"), save_best="mIoU", rule="greater"),
    )
    lines = [
        comment(
            f"Schedule: {epochs} epochs{'' if small else ', as the recipe on ADE20K'}, within "
            f"{least:,} to {most:,} steps: {epochs} x {len(plan.train.names)} images / "
            f"{schedule.batch}, so {schedule.steps} steps. Warm-up: at most a tenth of all steps. "
            f"Validated {VALIDATIONS} times."
        ),
        assign("max_iters", schedule.steps),
        assign("val_interval", schedule.val_interval),
    ]
    if small:
        decay = dict(
            type="CosineAnnealingLR",
            begin=0,
            end=Code("max_iters"),
            eta_min=1e-5,
            by_epoch=False,
        )
        lines += [
            assign("train_cfg", dict(type="IterBasedTrainLoop", **loop)),
            assign("val_cfg", dict(type="ValLoop")),
            assign("test_cfg", dict(type="TestLoop")),
            assign("param_scheduler", [warmup, decay]),
            *small_optimizer_lines(SMALL_RATE),
        ]
    else:
        decay = dict(
            type="PolyLR",
            power=1.0,
            eta_min=0.0,
            by_epoch=False,
            begin=schedule.warmup,
            end=Code("max_iters"),
        )
        lines += [
            assign("train_cfg", loop),
            assign("param_scheduler", [warmup, decay]),
            *recipe_optimizer_lines(plan),
        ]
    return "\n".join([*lines, assign("default_hooks", hooks)])
