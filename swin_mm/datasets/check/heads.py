"""Compares the class counts in a model's settings with the data's classes."""

from collections.abc import Iterator
from typing import Any

from swin_mm.datasets.check.summary import DatasetError

# Their num_classes, where they have one, does not count the data's classes: backbones keep a
# classifier's, proposal heads tell objects from the rest, a semantic head labels stuff.
UNRELATED = frozenset(
    {"backbone", "data_preprocessor", "init_cfg", "neck", "rpn_head", "semantic_head"}
)


def check_num_classes(model: dict, classes: tuple[str, ...]) -> None:
    """Checks that every head predicts as many classes as the data has.

    Args:
        model: The `model` of a config.
        classes: Class names of the data.

    Raises:
        DatasetError: Some head disagrees; the message has the options that mend it.
    """
    wrong = {
        path: count for path, count in find_num_classes(model, "model") if count != len(classes)
    }
    if wrong:
        heads = ", ".join(f"{path}={count}" for path, count in wrong.items())
        options = " ".join(f"{path}={len(classes)}" for path in wrong)
        raise DatasetError(
            f"{heads} but the data set has {len(classes)} classes: --cfg-options {options}"
        )


def find_num_classes(settings: Any, path: str) -> Iterator[tuple[str, int]]:
    """Walks settings; yields the config path and value of each `num_classes` of a head."""
    if isinstance(settings, dict):
        if isinstance(settings.get("num_classes"), int):
            yield f"{path}.num_classes", settings["num_classes"]
        children = [(key, value) for key, value in settings.items() if key not in UNRELATED]
    elif isinstance(settings, (list, tuple)):
        children = list(enumerate(settings))
    else:
        return
    for key, value in children:
        yield from find_num_classes(value, f"{path}.{key}")
