"""Finds the recipe that a config for one's own data inherits, and what its model changes."""

import ast
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from swin_mm.checkpoint import CheckpointError
from swin_mm.checkpoint.published import Weights, find_weights, resolve_weights
from swin_mm.configs import packaged_configs
from swin_mm.datasets.check.settings import find_num_classes
from swin_mm.engine.checkpoint_files import find_damage
from swin_mm.init_config.bands import Bands
from swin_mm.init_config.text import Code
from swin_mm.init_config.write import InitConfigError, Options

ALIASES = {"cascade": "cascade_mask_rcnn"}
# Methods whose schedule, heads and thresholds can be fitted.
DETECTION = ("mask_rcnn", "cascade_mask_rcnn", "atss", "retinanet", "reppoints")
SEGMENTATION = ("upernet",)
BACKBONES = {"tiny": "t", "small": "s", "base": "b", "large": "l"}
SMALL = {"mask_rcnn": "mask_rcnn_swin_mini_shapes", "upernet": "upernet_swin_mini_shapes"}


def choose_recipe(options: Options, known: Sequence[str]) -> tuple[str, Config, str]:
    """Finds and reads the recipe that the user's choices, or the weights to start from, ask for.

    Args:
        options: The choices.
        known: Methods that fit the data, the default first.

    Returns:
        Its name, its config, and its method and backbone in words.

    Raises:
        InitConfigError: There is none; lists those there are.
    """
    method, backbone, preset = options.method, options.backbone, options.preset
    if options.weights and preset != "full":
        raise InitConfigError("--weights fit a recipe, not the small model: give --preset full")
    weights = named_weights(options.weights)
    if weights and not method and not backbone:
        if weights.recipe is None:
            raise InitConfigError(
                f"--weights {weights.name} fit no recipe of swin_mm, only {weights.config}: choose "
                "others (`swin-mm weights` lists them), or the nearest recipe with --method and "
                "--backbone"
            )
        method, _, backbone = weights.recipe.partition("_swin_")
        if method not in known:
            raise InitConfigError(
                f"--weights {options.weights} are of {method}; for this data there are "
                f"{', '.join(known)}: choose weights of one of them (`swin-mm weights` lists them)"
            )
    method, backbone = check_method(method or known[0], known), backbone or "tiny"
    if preset == "full":
        name = find_recipe(method, backbone)
    elif method in SMALL:
        name = SMALL[method]
    else:
        raise InitConfigError(
            f"there is no small model of {method}, only of {', '.join(SMALL)}: choose one of them, "
            "or --preset full"
        )
    path = packaged_configs()[name]
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or name
    words = [part.strip() for part in text.splitlines()[0].rstrip(".").split(",")]
    if weights and weights.recipe and _backbone(weights.recipe) != _backbone(name):
        raise InitConfigError(
            f"--weights {options.weights} are of {weights.recipe}, whose backbone is not that of "
            f"{name}: leave out --method and --backbone, which the weights choose, or choose other "
            "weights"
        )
    return name, Config.fromfile(path), ", ".join(words[: 2 if preset == "full" else 1])


def _backbone(recipe: str) -> str:
    """Returns the version and size of a recipe's backbone, such as `v2_t`."""
    found = re.search(r"_swin_((?:v2_)?[a-z]+)", recipe)
    return found[1] if found else ""


def named_weights(name: str | None) -> Weights | None:
    """Returns the published weights of a name; None for a file, an address or nothing.

    Raises:
        CheckpointError: There are none of that name, or no file.
    """
    if not name:
        return None
    if "://" not in (place := resolve_weights(name)) and (
        damage := find_damage(Path(place).expanduser())
    ):
        raise CheckpointError(f"cannot load --weights {place}: {damage}")
    return None if place == name else find_weights(name)


def start_settings(options: Options, model: ConfigDict, classes: int) -> dict[str, Any]:
    """Makes what the config says of the weights that the whole model starts from.

    Args:
        options: The user's choices.
        model: The recipe's model.
        classes: Number of classes of the data.

    Returns:
        `load_from`, None for a backbone's weights alone, and `start`, which says in words what is
        loaded.
    """
    if not options.weights:
        return dict(load_from=None, start="")
    place, weights = resolve_weights(options.weights), named_weights(options.weights)
    start = f"training starts from the weights {options.weights}"
    if weights:
        metrics = ", ".join(f"{key} {value:g}" for key, value in weights.metrics.items())
        start += f" (published: {metrics} on {weights.dataset})"
    heads = {path.split(".", 1)[1]: count for path, count in find_num_classes(model, "model")}
    other = [path.rpartition(".")[0] for path, count in heads.items() if count != classes]
    if other:
        start += f"; layers for other classes are left out and learned anew: {', '.join(other)}"
    else:
        start += "; they may have as many classes as the data, so all layers are loaded"
    place = place if "://" in place else str(Path(place).expanduser().resolve())
    return dict(load_from=place, start=start)


def find_recipe(method: str, backbone: str, known: Sequence[str] | None = None) -> str:
    """Finds the recipe of a method and a backbone: the one with the fewest extras in its name.

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
    special = ("shapes", "_context", "_mini")  # for built-in data, or another kind of attention
    own = [n for n in known if n.startswith(prefix) and not any(part in n for part in special)]
    fitting = [name for name in own if name == start or name.startswith(start + "_")]
    if not fitting:
        raise InitConfigError(
            f"there is no recipe {start}: with this method there are {', '.join(own) or 'none'}; "
            "name what follows swin_ with --backbone"
        )
    return min(fitting, key=lambda name: (len(name), name))


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


def input_settings(options: Options, bands: Bands | None) -> dict[str, Any]:
    """Makes the model's settings for its first weights and the bands that it takes."""
    backbone: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    if bands is not None:
        settings["data_preprocessor"] = dict(
            mean=list(bands.mean), std=list(bands.std), bgr_to_rgb=False
        )
        backbone["in_channels"] = Code("len(bands)")
    if options.weights:
        backbone["init_cfg"] = None
    elif options.preset == "full":
        backbone["init_cfg"] = dict(checkpoint=Code("pretrained"))
    return {**settings, "backbone": backbone} if backbone else settings


def class_settings(model: ConfigDict) -> dict[str, Any]:
    """Makes the settings that give every head the number of classes of the data.

    Args:
        model: The recipe's model.

    Returns:
        Nested settings with `Code("num_classes")`. A config can only replace a list of heads
        (cascades) as a whole, so there an expression changes each head.
    """
    overrides: dict[str, Any] = {}
    for path, _ in find_num_classes(model, "model"):
        *parents, last = path.split(".")[1:]
        place = overrides
        for index, name in enumerate(parents):
            if any(part.isdigit() for part in parents[index + 1 : index + 2]):
                base = ".".join(["_base_.model", *parents[: index + 1]])
                place[name] = Code(f"[dict(head, num_classes=num_classes) for head in {base}]")
                break
            place = place.setdefault(name, {})
        else:
            place[last] = Code("num_classes")
    return overrides


def threshold_settings(model: dict, most_objects: int) -> dict[str, Any]:
    """Makes the settings for testing on small data.

    Average precision counts every true object that is found, however low its score, and images
    may have more objects than COCO's hundred.

    Args:
        model: The recipe's model.
        most_objects: In one image.

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


def merge(*layers: dict[str, Any]) -> dict[str, Any]:
    """Merges nested settings; later ones win."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            both = isinstance(merged.get(key), dict) and isinstance(value, dict)
            merged[key] = merge(merged[key], value) if both else value
    return merged
