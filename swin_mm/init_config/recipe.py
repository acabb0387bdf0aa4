"""The recipes of swin_mm that a config for one's own data builds on."""

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from swin_mm.configs import CONFIG_FOLDER, packaged_configs
from swin_mm.datasets.check.heads import find_num_classes
from swin_mm.init_config.errors import InitConfigError
from swin_mm.init_config.text import Code

ALIASES = {"cascade": "cascade_mask_rcnn"}
# Those whose schedule, heads and thresholds this package knows how to fit.
DETECTION = ("mask_rcnn", "cascade_mask_rcnn", "atss", "retinanet", "reppoints")
SEGMENTATION = ("upernet",)
BACKBONES = {"tiny": "t", "small": "s", "base": "b", "large": "l"}
SMALL = {"mask_rcnn": "mask_rcnn_swin_mini.py", "upernet": "upernet_swin_mini.py"}


def find_recipe(method: str, backbone: str, known: Sequence[str] | None = None) -> str:
    """Finds the recipe of a method and a backbone: that with the fewest extras in its name.

    Args:
        method: Such as `mask_rcnn`.
        backbone: A key of `BACKBONES`, or a part of a recipe's name such as `v2_t`.
        known: Names of recipes; by default those that come with swin_mm.

    Raises:
        InitConfigError: There is none; lists those there are.
    """
    known = sorted(packaged_configs() if known is None else known)
    prefix = f"{ALIASES.get(method, method)}_swin_"
    start = prefix + BACKBONES.get(backbone, backbone)
    own = [name for name in known if name.startswith(prefix) and not _is_special(name)]
    fitting = [name for name in own if name == start or name.startswith(start + "_")]
    if not fitting:
        raise InitConfigError(
            f"there is no recipe {start}: with this method there are {', '.join(own) or 'none'}; "
            "name what follows swin_ with --backbone"
        )
    return min(fitting, key=lambda name: (len(name), name))


def _is_special(name: str) -> bool:
    """Whether a recipe is for built-in data or another variant of attention."""
    return "shapes" in name or "_context" in name or "_mini" in name


def check_method(method: str, known: Sequence[str]) -> str:
    """Returns the full name of a method.

    Raises:
        InitConfigError: It is not one of `known`.
    """
    name = ALIASES.get(method, method)
    if name not in known:
        raise InitConfigError(
            f"--method {method}: own data is written for {', '.join(known)}; for another, take its "
            "recipe (`swin-mm print-config` lists them) and change data and num_classes"
        )
    return name


def find_small(method: str) -> str:
    """Finds the model of the small preset.

    Raises:
        InitConfigError: The method has none.
    """
    if method not in SMALL:
        raise InitConfigError(
            f"there is no small model of {method}, only of {', '.join(SMALL)}: choose one of them, "
            "or --preset full"
        )
    return SMALL[method]


def read_title(base: Config) -> str:
    """Returns method and backbone in words, from the first line of a recipe."""
    text = ast.get_docstring(ast.parse(Path(base.filename).read_text())) or Path(base.filename).stem
    return ", ".join(part.strip() for part in text.splitlines()[0].rstrip(".").split(",")[:2])


def load_recipe(name: str) -> Config:
    """Reads a recipe, or a base model of the small preset."""
    folder = CONFIG_FOLDER if name in packaged_configs() else CONFIG_FOLDER / "_base_" / "models"
    return Config.fromfile(folder / f"{name.removesuffix('.py')}.py")


def class_overrides(model: ConfigDict) -> dict[str, Any]:
    """Makes the settings that give every head the number of classes of the own data.

    Args:
        model: The recipe's model.

    Returns:
        Nested settings with `Code("num_classes")`. Where heads stand in a list (cascades), which a
        config can only replace as a whole, an expression that changes each.
    """
    overrides: dict[str, Any] = {}
    for path, _ in find_num_classes(model, "model"):
        names = path.split(".")[1:]
        place = overrides
        for index, name in enumerate(names[:-1]):
            if name.isdigit():
                break
            following = names[index + 1]
            if following.isdigit():
                base = "_base_." + ".".join(["model", *names[: index + 1]])
                place[name] = Code(f"[dict(head, num_classes=num_classes) for head in {base}]")
                break
            place = place.setdefault(name, {})
        else:
            place[names[-1]] = Code("num_classes")
    return overrides


def threshold_overrides(model: ConfigDict, most_objects: int) -> dict[str, Any]:
    """Makes the settings for testing that small data wants.

    Average precision counts every true object that is found, with however low a score, and images
    may have more objects than COCO's hundred.

    Args:
        model: The recipe's model.
        most_objects: Of one class or another in one image.

    Returns:
        Settings for `test_cfg`.
    """
    test_cfg = model.get("test_cfg") or {}
    overrides: dict[str, Any] = {}
    for where, settings in (("rcnn", test_cfg.get("rcnn")), (None, test_cfg)):
        if not isinstance(settings, dict) or "score_thr" not in settings:
            continue
        changed = dict(score_thr=min(0.001, settings["score_thr"]))
        if most_objects > settings.get("max_per_img", 100):
            changed["max_per_img"] = -(-most_objects // 100) * 100
        overrides.update({where: changed} if where else changed)
    return overrides


def merge_settings(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Merges nested settings; `second` wins."""
    merged = dict(first)
    for key, value in second.items():
        both = isinstance(merged.get(key), dict) and isinstance(value, dict)
        merged[key] = merge_settings(merged[key], value) if both else value
    return merged
