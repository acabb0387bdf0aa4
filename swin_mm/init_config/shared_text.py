"""What the configs of detectors and of segmentors for one's own data have in common."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from swin_mm.init_config.bands import Bands
from swin_mm.init_config.plan import Schedule
from swin_mm.init_config.text import Code, assign, base_lines, comment, docstring


@dataclass(frozen=True)
class Plan:
    """What the text of any config depends on.

    Attributes:
        out: The config to write.
        recipe: Name of the recipe, or of the small preset's base model.
        base: The recipe as read.
        title: Method and backbone in words.
        preset: `full` or `small`.
        bands: Bands other than those of a colour picture.
        scale: Long and short side that images are fitted into.
        schedule: How long to train.
        all_flips: Whether up and down are as good as left and right.
    """

    out: Path
    recipe: str
    base: Config
    title: str
    preset: str
    bands: Bands | None
    scale: tuple[int, int]
    schedule: Schedule
    all_flips: bool


def opening(plan: Plan, amount: str, runtime: str) -> str:
    """Writes the docstring and what the config builds on.

    Args:
        plan: The plan.
        amount: Images, classes and length of the training in words.
        runtime: The file of hooks and logging that goes with a model of the small preset.
    """
    text = docstring(
        f"{plan.title}, own data: {amount}.",
        "Written by `swin-mm init-config`; change it as you like. measured: not yet trained",
        f"Command: `swin-mm train {plan.out.name}`",
    )
    return "\n\n".join([text, base_lines(plan.recipe, plan.preset, runtime)])


def loading(plan: Plan) -> tuple[dict[str, Any], list[str]]:
    """Returns the step that loads an image, and the lines that it needs before it."""
    if plan.bands is None:
        return dict(type="LoadImageFromFile"), []
    lines = [
        comment(
            "Bands of the files that are used; pictures show the first three of them, or those "
            "that picture_bands of the loader names."
        ),
        assign("bands", plan.bands.chosen),
    ]
    return dict(type="swin_mm.LoadMultiBandImage", bands=Code("bands")), lines


def backbone_lines(plan: Plan, settings: dict[str, Any], unit: str) -> list[str]:
    """Adds to a model's settings the weights it begins with and the bands it takes.

    Args:
        plan: The plan.
        settings: Of the model; changed in place.
        unit: What the length of the training is counted in.

    Returns:
        The lines that the settings need before them.
    """
    lines = []
    if plan.preset == "full":
        lines += [
            comment(
                "Published weights, fetched when training starts. Without network: a file of "
                "them, or None for init_cfg to start from scratch (which wants ten times the "
                f"{unit})."
            ),
            assign("pretrained", plan.base.model.backbone.init_cfg.checkpoint),
        ]
        settings["backbone"] = dict(init_cfg=dict(checkpoint=Code("pretrained")))
    if plan.bands is not None:
        lines.append(
            comment(
                f"Mean and standard deviation of each band over {plan.bands.images} training "
                "images, in the units of the files."
            )
        )
        settings.setdefault("data_preprocessor", {}).update(
            mean=list(plan.bands.mean), std=list(plan.bands.std), bgr_to_rgb=False
        )
        settings["backbone"] = {"in_channels": Code("len(bands)"), **settings.get("backbone", {})}
    return lines


def small_optimizer_lines(rate: float) -> tuple[str, str]:
    """Writes the optimizer of a small model, whose `rate` is for four images a step.

    Source: the rate of Adam goes with the root of the batch (Malladi et al., 2022,
    https://arxiv.org/abs/2205.10287).
    """
    wrapper = dict(
        type="swin_mm.OptimWrapper",
        constructor="swin_mm.MergedOptimWrapperConstructor",
        optimizer=dict(
            type="AdamW",
            lr=Code(f"{rate:g} * (batch_size / 4) ** 0.5"),
            weight_decay=0.05,
            fused=True,
        ),
        clip_grad=dict(max_norm=5.0),
    )
    scaling = dict(enable=False, base_batch_size=Code("batch_size"))
    return assign("optim_wrapper", wrapper), assign("auto_scale_lr", scaling)


def recipe_optimizer_lines(plan: Plan) -> tuple[str, str, str]:
    """Writes the optimizer of a recipe, for the images of a step here."""
    base_batch = plan.base.auto_scale_lr.base_batch_size
    rate = Code(f"{plan.base.optim_wrapper.optimizer.lr:g} * batch_size / {base_batch}")
    return (
        comment(
            f"The recipe's rate is for {base_batch} images a step; several GPUs: --auto-scale-lr."
        ),
        assign("optim_wrapper", dict(optimizer=dict(lr=rate))),
        assign("auto_scale_lr", dict(base_batch_size=Code("batch_size"))),
    )
