"""Decides what a segmentor's config for one's own data says."""

from collections.abc import Sequence
from typing import Any

from swin_mm.init_config import plan, recipe
from swin_mm.init_config.draft import Draft
from swin_mm.init_config.options import Written
from swin_mm.init_config.semantic import SemanticPart, decide_labels
from swin_mm.init_config.text import Code


def write_segmentor(draft: Draft, parts: Sequence[SemanticPart], names: tuple[str, ...]) -> Written:
    """Writes a config for training and validation data; without `names`, classes get numbers."""
    preset = draft.options.preset
    values = {value for part in parts for found in part.values.values() for value in found}
    labels = decide_labels(values, names)
    draft.notes.append(labels.explanation)
    train, val = draft.train_and_val(parts)
    used = {"train": train, "val": val}
    for split, part in used.items():
        if not part.is_whole:
            part.list_file = draft.options.beside(f"{split}.txt")
            draft.files[part.list_file] = "\n".join(part.names) + "\n"
    draft.add_data(
        f"Data. {labels.explanation}",
        dict(classes=Code("classes")),
        labels.classes,
        [train.images, train.masks, val.images, val.masks],
        **{f"{split}_images": part.images for split, part in used.items()},
        **{f"{split}_masks": part.masks for split, part in used.items()},
        **{f"{split}_list": part.list_file for split, part in used.items() if part.list_file},
    )
    draft.add_images((train, val))
    count, classes = len(train.names), len(labels.classes)
    scale = plan.choose_segmentation_scale(train.sizes(), preset)
    crop = plan.choose_crop(scale, preset)
    batch = draft.options.batch or plan.choose_batch((crop, crop), count, preset)
    schedule = plan.plan_steps(count, batch, preset)
    _add_pipelines(draft, scale, crop)

    def dataset(split: str) -> dict[str, Any]:
        part = used[split]
        return dict(
            _delete_=True,
            type="BaseSegDataset",
            data_prefix=dict(img_path=Code(f"{split}_images"), seg_map_path=Code(f"{split}_masks")),
            **(dict(ann_file=Code(f"{split}_list")) if part.list_file else {}),
            img_suffix=part.image_suffix,
            seg_map_suffix=part.mask_suffix,
            reduce_zero_label=labels.reduce_zero_label,
        )

    draft.add_loaders(batch, dataset)
    heads = [name for name in ("decode_head", "auxiliary_head") if name in draft.base.model]
    # The class weights of the small recipe are those of its own classes.
    unweighted = {head: dict(loss_decode=dict(class_weight=None)) for head in heads}
    settings = recipe.merge(
        dict(data_preprocessor=dict(size=Code("crop_size"))),
        recipe.class_settings(draft.base.model),
        {} if draft.is_full else unweighted,
    )
    draft.add_model("", settings, classes)
    begin = f", begin={schedule.warmup}" if draft.is_full else ""
    draft.add_schedule(schedule, "iters", begin, save_best="mIoU")
    return draft.write(
        amount=f"{count} images, {classes} classes, {schedule.steps} steps",
        data=f"{count} training and {len(val.names)} validation images, {classes} classes: "
        f"{', '.join(labels.classes)}",
        model=f"{schedule.steps} steps of {batch} crops of {crop} x {crop}",
        checkpoint=f"iter_{schedule.steps}.pth",
    )


def _add_pipelines(draft: Draft, scale: tuple[int, int], crop: int) -> None:
    flips = [dict[str, Any](type="RandomFlip", prob=0.5)]
    if draft.options.all_flips:
        flips = [dict(**flips[0], direction=side) for side in ("horizontal", "vertical")]
    size: dict[str, Any] = dict(scale=Code("image_scale"), keep_ratio=True)
    several = Code('[dict(type="Resize", scale=s, keep_ratio=True) for s in tta_scales]')
    turned = [dict(type="RandomFlip", prob=0.0), dict(type="RandomFlip", prob=1.0)]
    annotations, pack = dict(type="LoadAnnotations"), dict(type="PackSegInputs")
    colours = "PhotoMetricDistortion" if draft.bands is None else "swin_mm.RandomBandGain"
    draft.add(
        "Long and short side that images are fitted into, pixels: the middle size of the data. "
        "Crops of crop_size are trained on.",
        image_scale=scale,
        crop_size=(crop, crop),
        train_pipeline=[
            draft.load,
            annotations,
            dict(type="RandomResize", ratio_range=(0.5, 2.0), **size),
            dict(type="RandomCrop", crop_size=Code("crop_size"), cat_max_ratio=0.75),
            *flips,
            dict(type=colours),
            dict(type="swin_mm.PackSegInputs"),
        ],
        test_pipeline=[draft.load, dict(type="Resize", **size), annotations, pack],
        tta_scales=Code("[tuple(int(r * s) for s in image_scale) for r in (0.75, 1.0, 1.25)]"),
        tta_pipeline=[
            draft.load,
            dict(type="TestTimeAug", transforms=[several, turned, [annotations], [pack]]),
        ],
    )
