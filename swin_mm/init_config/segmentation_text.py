"""The text of a segmentor's config for one's own data."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from swin_mm.init_config.bands import Bands
from swin_mm.init_config.plan import SEGMENTATION_EPOCHS, SEGMENTATION_STEPS, VALIDATIONS, Schedule
from swin_mm.init_config.recipe import class_overrides, merge_settings
from swin_mm.init_config.semantic import Labels, SemanticPart
from swin_mm.init_config.text import Code, assign, base_lines, comment, docstring
from swin_mm.init_config.write import common_root, place_below

SMALL_RATE = 1e-3  # for four images a step


@dataclass(frozen=True)
class SegmentationPlan:
    """All that the text of the config depends on.

    Attributes:
        out: The config to write.
        recipe: Name of the recipe, or of the small preset's base model.
        base: The recipe as read.
        title: Method and backbone in words.
        preset: `full` or `small`.
        labels: Classes, and how label maps are read.
        palette: Colour of each class.
        train: Training data.
        val: Validation data.
        bands: Bands other than those of a colour picture.
        scale: Long and short side that images are fitted into.
        crop: Side of the square that is trained on.
        schedule: Steps.
        all_flips: Whether up and down are as good as left and right.
    """

    out: Path
    recipe: str
    base: Config
    title: str
    preset: str
    labels: Labels
    palette: list[tuple[int, int, int]]
    train: SemanticPart
    val: SemanticPart
    bands: Bands | None
    scale: tuple[int, int]
    crop: int
    schedule: Schedule
    all_flips: bool


def segmentation_text(plan: SegmentationPlan) -> str:
    """Writes the config."""
    blocks = [
        _opening(plan),
        _data(plan),
        _pipelines(plan),
        _loaders(plan),
        _model(plan),
        _schedule(plan),
    ]
    return "\n\n".join(blocks) + "\n"


def _opening(plan: SegmentationPlan) -> str:
    first = (
        f"{plan.title}, own data: {len(plan.train.names)} images, {len(plan.labels.classes)} "
        f"classes, {plan.schedule.steps} steps."
    )
    text = docstring(
        first,
        "Written by `swin-mm init-config`; change it as you like. measured: not yet trained",
        f"Command: `swin-mm train {plan.out.name}`",
    )
    return "\n\n".join([text, base_lines(plan.recipe, plan.preset, "default_runtime_seg.py")])


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
    lines = []
    load: dict[str, Any] = dict(type="LoadImageFromFile")
    light: dict[str, Any] = dict(type="PhotoMetricDistortion")
    if plan.bands is not None:
        load = dict(type="swin_mm.LoadMultiBandImage", bands=Code("bands"))
        light = dict(type="swin_mm.RandomBandGain")
        lines = [
            comment(
                "Bands of the files that are used; pictures show the first three of them, or "
                "those that picture_bands of the loader names."
            ),
            assign("bands", plan.bands.chosen),
        ]
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
        light,
        dict(type="PackSegInputs"),
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
    lines = []
    first: dict[str, Any] = dict(data_preprocessor=dict(size=Code("crop_size")))
    if plan.preset == "full":
        lines += [
            comment(
                "Published weights, fetched when training starts. Without network: a file of "
                "them, or None for init_cfg to start from scratch (which wants ten times the "
                "steps)."
            ),
            assign("pretrained", plan.base.model.backbone.init_cfg.checkpoint),
        ]
        first["backbone"] = dict(init_cfg=dict(checkpoint=Code("pretrained")))
    if plan.bands is not None:
        lines.append(
            comment(
                f"Mean and standard deviation of each band over {plan.bands.images} training "
                "images, in the units of the files."
            )
        )
        first["data_preprocessor"].update(
            mean=list(plan.bands.mean), std=list(plan.bands.std), bgr_to_rgb=False
        )
        first["backbone"] = {"in_channels": Code("len(bands)"), **first.get("backbone", {})}
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
        wrapper: dict[str, Any] = dict(
            type="OptimWrapper",
            optimizer=dict(
                type="AdamW", lr=Code(f"{SMALL_RATE:g} * batch_size / 4"), weight_decay=0.05
            ),
            clip_grad=dict(max_norm=5.0),
        )
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
            assign("optim_wrapper", wrapper),
            assign("auto_scale_lr", dict(enable=False, base_batch_size=Code("batch_size"))),
        ]
    else:
        optimizer = plan.base.optim_wrapper.optimizer
        base_batch = plan.base.auto_scale_lr.base_batch_size
        decay = dict(
            type="PolyLR",
            power=1.0,
            eta_min=0.0,
            by_epoch=False,
            begin=schedule.warmup,
            end=Code("max_iters"),
        )
        rate = Code(f"{optimizer.lr:g} * batch_size / {base_batch}")
        lines += [
            assign("train_cfg", loop),
            assign("param_scheduler", [warmup, decay]),
            comment(
                f"The recipe's rate is for {base_batch} images a step; several GPUs: "
                "--auto-scale-lr."
            ),
            assign("optim_wrapper", dict(optimizer=dict(lr=rate))),
            assign("auto_scale_lr", dict(base_batch_size=Code("batch_size"))),
        ]
    return "\n".join([*lines, assign("default_hooks", hooks)])
