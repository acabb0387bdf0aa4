"""Decides what a segmentor's config for one's own data says, and writes it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swin_mm.init_config import plan, recipe
from swin_mm.init_config.bands import survey_bands
from swin_mm.init_config.semantic import (
    SemanticPart,
    decide_labels,
    find_palette,
    split_part,
)
from swin_mm.init_config.text import Code, fill_template
from swin_mm.init_config.write import (
    Options,
    Written,
    check_out,
    common_root,
    place_below,
    write_config,
)


def init_parts(
    parts: Sequence[SemanticPart],
    classes: tuple[str, ...],
    notes: Sequence[str],
    options: Options,
) -> Written:
    """Writes a config that trains a segmentor on images and label maps.

    Args:
        parts: Training and validation data; of one alone a part is split off.
        classes: Names; without any, classes get numbers.
        notes: What the user should know of the data.
        options: Further choices.

    Raises:
        InitConfigError: No config can be written; the message says why.
        DatasetError: The data cannot be trained on.
    """
    check_out(options.out, options.force)
    name, base, title = recipe.choose_recipe(options, recipe.SEGMENTATION)
    values = [part.values() for part in parts]
    labels = decide_labels(
        {value for part in values for found in part.values() for value in found}, classes
    )
    notes = [*notes, labels.explanation]
    if len(parts) == 1:
        parts = list(split_part(parts[0], values[0], options.val_share))
        notes.append(options.split_note(len(parts[1].names)))
    for part, split in zip(parts, ("train", "val"), strict=True):
        if not part.is_whole:
            part.list_file = options.beside(f"{split}.txt")
    train, val = parts
    settings = _fit(train, options)
    settings["turning"], told = plan.choose_turning(settings["bands"], parts)
    notes += told
    schedule, crop, count = settings["schedule"], settings["crop"], len(train.names)
    class_count, zero = len(labels.classes), labels.reduce_zero_label
    settings.update(recipe.start_settings(options, base.model, class_count))
    text = fill_template(
        "segmentation.py.jinja",
        title=title,
        amount=f"{count} images, {class_count} classes, {schedule.steps} steps",
        recipe=name,
        base=base,
        labels=labels,
        palette=find_palette(train.mask_file(train.names[0]), class_count, zero),
        train=train,
        val=val,
        paths=_paths(train, val),
        model=recipe.merge(
            dict(data_preprocessor=dict(size=Code("crop_size"))),
            recipe.input_settings(options, settings["bands"]),
            recipe.class_settings(base.model),
            _unweighted(base.model) if options.preset == "small" else {},
        ),
        **settings,
    )
    lists = {p.list_file: "\n".join(p.names) + "\n" for p in parts if p.list_file}
    return Written(
        config=options.out,
        files=write_config(options, text, lists),
        data=f"{count} training and {len(val.names)} validation images, {class_count} classes: "
        f"{', '.join(labels.classes)}",
        model=f"{title}, {schedule.steps} steps of {schedule.batch} crops of {crop} x {crop}",
        notes=[*notes, *filter(None, [settings["start"]])],
        checkpoint=Path("work_dirs", options.out.stem, f"iter_{schedule.steps}.pth"),
    )


def _fit(train: SemanticPart, options: Options) -> dict[str, Any]:
    """Chooses what depends on the training data: sizes, schedule, bands."""
    preset, count = options.preset, len(train.names)
    scale = plan.choose_segmentation_scale(train.sizes(), preset)
    crop = plan.choose_crop(scale, preset)
    batch = options.batch or plan.choose_batch((crop, crop), count, preset)
    least, most = plan.SEGMENTATION_STEPS[preset]
    return dict(
        out=options.out,
        preset=preset,
        all_flips=options.all_flips,
        unit="steps",
        bands=survey_bands(train.image_files(), options.bands),
        scale=scale,
        crop=crop,
        schedule=plan.plan_steps(count, batch, preset),
        epochs=plan.SEGMENTATION_EPOCHS[preset],
        least_steps=least,
        most_steps=most,
        hooks=dict(
            logger=dict(interval=50),
            checkpoint=dict(interval=Code("val_interval"), save_best="mIoU", rule="greater"),
        ),
    )


def _unweighted(model: dict) -> dict[str, Any]:
    """Takes out the class weights of the small recipe, which are those of its own classes."""
    heads = ("decode_head", "auxiliary_head")
    return {h: dict(loss_decode=dict(class_weight=None)) for h in heads if h in model}


def _paths(train: SemanticPart, val: SemanticPart) -> dict[str, Any]:
    root = common_root([path for part in (train, val) for path in (part.images, part.masks)])
    paths: dict[str, Any] = dict(root=root)
    for split, part in (("train", train), ("val", val)):
        paths[split] = dict(
            images=place_below(root, part.images),
            masks=place_below(root, part.masks),
            list=part.list_file and place_below(root, part.list_file),
        )
    return paths
