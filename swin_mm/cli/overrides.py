"""Applies `--cfg-options` to configs, and to the variables that their files compute with.

mmengine applies options after a config has been evaluated. An option for a variable of the files,
such as `max_epochs`, then changes that name alone, and none of the settings computed from it. Here
a file is evaluated with the option's value in place of its own.
"""

import copy
import inspect
import os
import re
import sys
from collections import UserDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from unittest.mock import patch

from mmengine.config import Config
from mmengine.config import config as mmengine_config

from swin_mm.configs import ConfigError, read_config

DELETE = "_delete_"  # mmengine's key for "start from an empty dict"
ABSENT = object()
# How alike a name and a key must be for one to be a misspelling of the other: `load_form` is.
ALIKE = 0.88
NEAR = 0.78  # of a new key and one beside which it would stand: `base_batch` is
# Dicts whose keys are names of the config's author.
FREE_KEYS = ("custom_keys", "data_prefix", "default_hooks", "metainfo")
SLIDING = ("crop_size", "stride", "windows_per_batch")  # of a segmentor, in its test_cfg
# Keys of a config that mmengine and the tools read beside the runner's arguments.
OTHER_KEYS = (
    "activation_checkpointing",
    "broadcast_buffers",
    "compile",
    "custom_imports",
    "efficient_conv_bn_eval",
    "find_unused_parameters",
    "model_wrapper_cfg",
    "runner_type",
    "sliced_model",
    "sync_bn",
    "tta_model",
    "tta_pipeline",
)
# Names in mmdet's and mmseg's base configs, which a config that a run has written uses nowhere.
VARIABLES = {"train_pipeline", "val_pipeline", "test_pipeline"}
MAX_HINTS = 3


def runner_keys() -> set[str]:
    """Top-level keys of a config that mmengine or the tools read."""
    from mmengine.runner import Runner

    return {*inspect.signature(Runner.__init__).parameters, *OTHER_KEYS}


def check_top_keys(cfg: Config) -> None:
    """Refuses a top-level key that looks like a misspelt setting of the runner.

    Any name may be a variable of the config's author, which stands at least twice in the files:
    where it is set and where it is used. Keys further down are refused by the classes that they are
    given to.
    """
    known = runner_keys()
    for name in cfg.keys() - known - VARIABLES:
        uses = len(re.findall(rf"\b{re.escape(name)}\b", cfg.text))
        if uses < 2 and (nearest := get_close_matches(name, known, n=1, cutoff=ALIKE)):
            raise ConfigError(f"{cfg.filename}: no setting {name}; did you mean {nearest[0]}?")


def check_new_keys(before: Mapping[str, Any], cfg: Config, keys: Iterable[str]) -> None:
    """Looks at overrides that add a key to a dict without a type, of which no class says more.

    `before` is the config without the overrides, whose dotted keys are `keys`. A key that looks
    like one that is there is refused; of others a warning is printed.
    """
    for key in keys:
        node: Any = before
        parts = key.split(".")
        for depth, part in enumerate(parts):  # noqa: B007, it says where the walk ended
            if isinstance(node, list | tuple) and part.lstrip("-").isdigit():
                node = node[int(part)]
            elif isinstance(node, dict) and part in node:
                node = node[part]
            else:
                break
        else:
            continue  # it is not new
        if not depth or not isinstance(node, dict) or "type" in node or part == DELETE:
            continue
        above, parent = ".".join(parts[:depth]), parts[depth - 1]
        if nearest := get_close_matches(part, map(str, node), n=1, cutoff=NEAR):
            raise ConfigError(
                f"{cfg.filename}: {above} has no {part!r}; did you mean {above}.{nearest[0]}?"
            )
        is_known = parent in FREE_KEYS or (part in SLIDING and parent == "test_cfg")
        if not is_known and depth > 1 and os.environ.get("RANK", "0") == "0":
            print(f"warning: the config has no {key}: nothing may read it", file=sys.stderr)


def apply_overrides(cfg: Config, overrides: Mapping[str, Any]) -> Config:
    """Changes settings of a config, by dotted keys, parts of which may be an index of a list.

    The file is evaluated again where an override is of a variable: of a top-level key that neither
    the runner nor the tools read.

    Raises:
        ConfigError: The file cannot be read, an override does not fit it or would change nothing
            that is read; names the key that would.
    """
    path, known = Path(cfg.filename), runner_keys()
    for key, value in overrides.items():
        if isinstance(value, str) and value.startswith(("{", "dict(")):
            raise ConfigError(
                f"--cfg-options {key}: give the keys of a dict one by one, {key}.KEY=VALUE; "
                f"{key}.{DELETE}=True empties it first"
            )
    variables = {key: v for key, v in overrides.items() if key.partition(".")[0] not in known}
    _check_top_keys(cfg, variables, known)
    for _, own in sorted(_by_name(variables).items()):
        _check_effect(cfg, _evaluate(path, own), own, known)
    if variables:
        cfg = _evaluate(path, variables)
    try:
        for name, changes in _by_name(overrides).items():
            cfg[name] = _override(cfg.get(name, ABSENT), changes)
    except ConfigError as error:
        raise ConfigError(f"--cfg-options does not fit {path}: {error}") from error
    return cfg


def _by_name(overrides: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Overrides by their top-level key; deletions come first, whatever their order was."""
    grouped: dict[str, dict[str, Any]] = {}
    for key in sorted(overrides, key=lambda key: not key.endswith(f".{DELETE}")):
        grouped.setdefault(key.partition(".")[0], {})[key] = overrides[key]
    return grouped


def _override(setting: Any, changes: Mapping[str, Any]) -> Any:
    """A copy of a top-level setting with changes, given by whole dotted key."""
    for key, value in changes.items():
        setting = _set(setting, key.split("."), 1, value)
    return setting


def _set(node: Any, parts: list[str], depth: int, value: Any) -> Any:
    """A copy of `node`, which lies at `parts[:depth]`, with `value` at `parts`."""
    if depth == len(parts):
        return value
    part, place = parts[depth], ".".join(parts[:depth])
    if part == DELETE and depth == len(parts) - 1:
        return {} if value else node
    if isinstance(node, list | tuple):
        try:
            index = range(len(node))[int(part)]
        except (ValueError, IndexError):
            raise ConfigError(
                f"{place} has {len(node)} entries, counted from 0: it has no {part!r}"
            ) from None
        entries = list(node)
        entries[index] = _set(entries[index], parts, depth + 1, value)
        return tuple(entries) if isinstance(node, tuple) else entries
    if node is ABSENT or node is None:
        node = {}
    if not isinstance(node, dict):
        raise ConfigError(f"{place} is {node!r}, which has no {part!r}")
    node = copy.copy(node)
    node[part] = _set(node.get(part, ABSENT), parts, depth + 1, value)
    return node


def _check_top_keys(cfg: Config, variables: Mapping[str, Any], known: set[str]) -> None:
    """Refuses overrides of keys that the config does not have and nothing would read."""
    for key in variables:
        name, *rest = key.split(".")
        if name in cfg:
            continue
        nearest = get_close_matches(name, sorted({*known, *cfg}), n=1, cutoff=0.75)
        if nearest:
            hint = f"did you mean {'.'.join([*nearest, *rest])}?"
        else:
            hint = _hint(cfg, key, known) or "nothing would read it"
        raise ConfigError(f"--cfg-options: the config has no {key}; {hint}")


def _check_effect(
    before: Config, after: Config, variables: Mapping[str, Any], known: set[str]
) -> None:
    """Refuses overrides of one variable that change its own name alone."""
    first = next(iter(variables))
    name = first.partition(".")[0]
    is_new = after.get(name) != before.get(name)
    if is_new and all(after.get(key) == before.get(key) for key in known):
        hint = _hint(before, first, known) or "no setting is computed from it"
        raise ConfigError(
            f"--cfg-options {first}={variables[first]!r} would change nothing but the variable "
            f"{name} of the config; {hint}"
        )


def _hint(cfg: Config, key: str, known: set[str]) -> str | None:
    """Names the settings that an override may have been meant for."""
    wanted = key.rpartition(".")[2]
    settings = {name: cfg.get(name) for name in cfg if name in known}
    keys: dict[str, list[str]] = {}
    for path in _paths(settings):
        keys.setdefault(path.rpartition(".")[2], []).append(path)
    nearest = get_close_matches(wanted, keys, n=1, cutoff=0.6)
    if not nearest:
        return None
    # Settings of training come first: those of tests have the same keys.
    found = sorted(keys[nearest[0]], key=lambda path: path.startswith(("val_", "test_", "tta_")))
    return f"use {' or '.join(found[:MAX_HINTS])}"


def _paths(node: Any, prefix: str = "") -> Iterator[str]:
    children: Any = ()
    if isinstance(node, dict):
        children = node.items()
    elif isinstance(node, list | tuple):
        children = enumerate(node)
    for key, child in children:
        path = f"{prefix}{key}"
        if isinstance(node, dict) and not isinstance(child, dict):
            yield path
        if key != "custom_keys":  # names of parameters
            yield from _paths(child, f"{path}.")


def _evaluate(path: Path, variables: Mapping[str, Any]) -> Config:
    """Reads a config whose files compute with other values of their variables."""
    changes = _by_name(variables)

    def run(code: Any, values: dict[str, Any] | None = None, *_: Any) -> Any:
        return eval(code) if values is None else eval(code, values, _Namespace(values, changes))

    try:
        # mmengine's module calls the built-ins; globals of the same names go before them.
        with patch.multiple(mmengine_config, create=True, eval=run, exec=run):
            return read_config(path)
    except ConfigError as error:
        options = " ".join(f"{key}={value!r}" for key, value in variables.items())
        raise ConfigError(f"with --cfg-options {options}: {error}") from error


class _Namespace(UserDict):
    """The variables of a config file while it runs: what it assigns is overridden at once."""

    def __init__(self, values: dict[str, Any], changes: Mapping[str, Mapping[str, Any]]) -> None:
        self.data = values
        self.changes = changes

    def __setitem__(self, name: str, value: Any) -> None:
        # What does not fit here, such as a base's shorter list, may fit the final value.
        with suppress(ConfigError):
            value = _override(value, self.changes.get(name, {}))
        self.data[name] = value
