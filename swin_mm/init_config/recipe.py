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
from swin_mm.init_config.options import InitConfigError, Options
from swin_mm.init_config.text import Code

ALIASES = {"cascade": "cascade_mask_rcnn"}
# Methods whose schedule, heads and thresholds can be fitted; the default first.
DETECTION = (
    *("mask_rcnn", "cascade_mask_rcnn", "atss", "retinanet"),
    *("reppoints", "reppoints_v2", "mask_reppoints_v2"),
)
SEGMENTATION = ("upernet",)
BACKBONES = {"tiny": "t", "small": "s", "base": "b", "large": "l"}
SMALL = {"mask_rcnn": "mask_rcnn_swin_mini_shapes", "upernet": "upernet_swin_mini_shapes"}


def choose_recipe(options: Options, known: Sequence[str]) -> tuple[str, Config, str]:
    """Finds the recipe that the user's choices, or the weights to start from, ask for.

    `known` are the methods that fit the data, the default first.

    Returns:
        Its name, its config, and its method and backbone in words.
    """
    method, backbone, full = options.method, options.backbone, options.preset == "full"
    if options.weights and not full:
        raise InitConfigError("--weights fit a recipe, not the small model: give --preset full")
    weights = _find_published(options.weights) if options.weights else None
    if options.weights and weights is None:
        _check_whole(options.weights)
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
    method = ALIASES.get(method or known[0], method or known[0])
    if method not in known:
        raise InitConfigError(
            f"--method {method}: own data is written for {', '.join(known)}; for another, take its "
            "recipe (`swin-mm print-config` lists them) and change data and num_classes"
        )
    if not full and method not in SMALL:
        raise InitConfigError(
            f"there is no small model of {method}, only of {', '.join(SMALL)}: choose one of them, "
            "or --preset full"
        )
    name = _find_recipe(method, backbone or "tiny") if full else SMALL[method]
    if weights and weights.recipe and _backbone(weights.recipe) != _backbone(name):
        raise InitConfigError(
            f"--weights {options.weights} are of {weights.recipe}, whose backbone is not that of "
            f"{name}: leave out --method and --backbone, which the weights choose, or choose other "
            "weights"
        )
    path = packaged_configs()[name]
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or name
    words = [part.strip() for part in text.splitlines()[0].rstrip(".").split(",")]
    return name, Config.fromfile(path), ", ".join(words[: 2 if full else 1])


def _find_recipe(method: str, backbone: str) -> str:
    """Finds the recipe of a method and a backbone: the one with the fewest extras in its name."""
    prefix = f"{method}_swin_"
    start = prefix + BACKBONES.get(backbone, backbone)
    special = ("shapes", "_context", "_mini")  # for built-in data, or another kind of attention
    names = [name for name in sorted(packaged_configs()) if name.startswith(prefix)]
    own = [name for name in names if not any(part in name for part in special)]
    fitting = [name for name in own if name == start or name.startswith(start + "_")]
    if not fitting:
        raise InitConfigError(
            f"there is no recipe {start}: with this method there are {', '.join(own) or 'none'}; "
            "name what follows swin_ with --backbone"
        )
    return min(fitting, key=lambda name: (len(name), name))


def _backbone(recipe: str) -> str:
    """Returns the version and size of a recipe's backbone, such as `v2_t`."""
    found = re.search(r"_swin_((?:v2_)?[a-z]+)", recipe)
    return found[1] if found else ""


def _find_published(name: str) -> Weights | None:
    """Returns the published weights of a name; None for a file or an address."""
    return None if resolve_weights(name) == name else find_weights(name)


def _check_whole(place: str) -> None:
    damage = None if "://" in place else find_damage(Path(place).expanduser())
    if damage:
        raise CheckpointError(f"cannot load --weights {place}: {damage}")


def describe_start(name: str, model: ConfigDict, classes: int) -> tuple[str, str]:
    """Returns the `load_from` of the weights of a whole model, and in words what is loaded."""
    place, weights = resolve_weights(name), _find_published(name)
    start = f"training starts from the weights {name}"
    if weights:
        metrics = ", ".join(f"{key} {value:g}" for key, value in weights.metrics.items())
        start += f" (published: {metrics} on {weights.dataset})"
    counts = find_num_classes(model, "model")
    other = [path.split(".", 1)[1].rpartition(".")[0] for path, n in counts if n != classes]
    if other:
        start += f"; layers for other classes are left out and learned anew: {', '.join(other)}"
    else:
        start += "; they may have as many classes as the data, so all layers are loaded"
    return place if "://" in place else str(Path(place).expanduser().resolve()), start


def class_settings(model: ConfigDict) -> dict[str, Any]:
    """Makes the settings that give every head the number of classes of the data.

    A config can only replace a list of heads (cascades) as a whole, so there an expression changes
    each head.
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


def threshold_settings(test_cfg: dict, most_objects: int) -> dict[str, Any]:
    """Changes `test_cfg` for small data.

    Average precision counts every true object that is found, however low its score, and images
    may have more objects than COCO's hundred.
    """
    changed: dict[str, Any] = dict(score_thr=0.001)
    if most_objects > test_cfg.get("rcnn", test_cfg)["max_per_img"]:
        changed["max_per_img"] = -(-most_objects // 100) * 100
    return dict(rcnn=changed) if "rcnn" in test_cfg else changed


def merge(*layers: dict[str, Any]) -> dict[str, Any]:
    """Merges nested settings; later ones win."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            both = isinstance(merged.get(key), dict) and isinstance(value, dict)
            merged[key] = merge(merged[key], value) if both else value
    return merged
