"""Decides what a segmentor's config for one's own data says, and writes it."""

from collections.abc import Sequence
from pathlib import Path

from swin_mm.init_config.bands import survey_bands
from swin_mm.init_config.errors import InitConfigError
from swin_mm.init_config.plan import (
    choose_batch,
    choose_crop,
    choose_segmentation_scale,
    plan_steps,
)
from swin_mm.init_config.recipe import (
    SEGMENTATION,
    check_method,
    find_recipe,
    find_small,
    load_recipe,
    read_title,
)
from swin_mm.init_config.segmentation_text import SegmentationPlan, segmentation_text
from swin_mm.init_config.semantic import (
    decide_labels,
    find_palette,
    read_classes,
    read_part,
    split_part,
)
from swin_mm.init_config.write import Written, check_out, write_config


def init_segmentation(
    masks: Sequence[str],
    out: Path,
    images: Sequence[str],
    classes: Sequence[str] | None = None,
    method: str = "upernet",
    backbone: str = "tiny",
    preset: str = "full",
    val_share: float = 0.2,
    bands: Sequence[int] | None = None,
    all_flips: bool = False,
    batch: int | None = None,
    force: bool = False,
) -> Written:
    """Writes a config that trains a segmentor on images and label maps.

    Args:
        masks: Folders of label maps for training and validation; of one alone a part is split off.
        out: The config to write.
        images: Folders of the images, likewise.
        classes: Names, or a file of names; without, classes get numbers.
        method: Such as `upernet`.
        backbone: `tiny`, `small`, `base`, `large`, or what follows `swin_` in a recipe's name.
        preset: `full` for a recipe, `small` for a model that trains on a CPU within minutes.
        val_share: What part of a single folder is for validation.
        bands: Bands of the images to use; all by default.
        all_flips: Whether pictures may be turned over in any direction (microscopes, maps).
        batch: Images a step; by default what fits a GPU of 8 GiB.
        force: Whether to replace files that are there.

    Raises:
        InitConfigError: No config can be written; the message says why.
        DatasetError: The data cannot be trained on.
    """
    check_out(out, force)
    method = check_method(method, SEGMENTATION)
    if len(masks) != len(images):
        raise InitConfigError(
            f"--images and --masks go together: got {len(images)} folders and {len(masks)}"
        )
    parts = [read_part(*folders) for folders in zip(images, masks, strict=True)]
    values = [part.values() for part in parts]
    labels = decide_labels(
        {value for part in values for found in part.values() for value in found},
        read_classes(classes),
    )
    notes = [labels.explanation]
    if len(parts) == 1:
        parts = list(split_part(parts[0], values[0], val_share))
        notes.append(
            f"{len(parts[1].names)} images were split off for validation, by the hash of their "
            "names, so always the same; split by hand if images belong together (frames of a "
            "film, tiles of a map)"
        )
    for part, name in zip(parts, ("train", "val"), strict=True):
        if not part.is_whole:
            part.list_file = out.parent.resolve() / f"{out.stem}_{name}.txt"
    train, val = parts
    recipe = find_small(method) if preset == "small" else find_recipe(method, backbone)
    base = load_recipe(recipe)
    sizes = train.sizes()
    scale = choose_segmentation_scale(sizes, preset)
    crop = choose_crop(scale, preset)
    count = len(train.names)
    schedule = plan_steps(count, batch or choose_batch((crop, crop), count, preset), preset)
    plan = SegmentationPlan(
        out=out,
        recipe=recipe,
        base=base,
        title="UPerNet on a small Swin" if preset == "small" else read_title(base),
        preset=preset,
        labels=labels,
        palette=find_palette(
            train.mask_file(train.names[0]), len(labels.classes), labels.reduce_zero_label
        ),
        train=train,
        val=val,
        bands=survey_bands(train.image_files(), bands),
        scale=scale,
        crop=crop,
        schedule=schedule,
        all_flips=all_flips,
    )
    lists = {p.list_file: "\n".join(p.names) + "\n" for p in (train, val) if p.list_file}
    write_config(out, segmentation_text(plan), lists, force)
    return Written(
        config=out,
        files=[*lists, out],
        data=f"{count} training and {len(val.names)} validation images, "
        f"{len(labels.classes)} classes: {', '.join(labels.classes)}",
        model=f"{plan.title}, {schedule.steps} steps of {schedule.batch} crops of {crop} x {crop}",
        notes=notes,
        checkpoint=Path("work_dirs", out.stem, f"iter_{schedule.steps}.pth"),
    )
