"""Reads configs for a command, and checks what is overridden on the command line."""

import argparse
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from mmengine.config import Config, DictAction

from swin_mm.configs import ConfigError, find_config, read_config

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


class KeyValueAction(DictAction):
    """mmengine's reader of `KEY=VALUE`, with an error that says what is wrong."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        for value in values:
            key, equals, _ = value.partition("=")
            if not (key and equals):
                parser.error(f"{option_string} takes KEY=VALUE, got {value!r}")
        try:
            super().__call__(parser, namespace, values, option_string)
        except AssertionError as error:  # of brackets that do not match
            parser.error(f"{option_string}: {error}")


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--cfg-options` to a command."""
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=KeyValueAction,
        default={},
        metavar="KEY=VALUE",
        help="change settings of the config: model.backbone.drop_path_rate=0.2; lists as "
        'key=a,b or key=[a,b], nested ones as key="[(a,b),(c,d)]", without blanks',
    )


def load_config(
    name: str,
    overrides: Mapping[str, Any] | None = None,
    check: Callable[[Config], None] | None = None,
) -> Config:
    """Reads a config and applies overrides.

    Args:
        name: A path, or the name of a config that comes with swin_mm.
        overrides: Settings by dotted key, as `--cfg-options` gives them. A key that nothing in the
            config resembles is taken; one that looks misspelt is taken too, with a warning.
        check: Called with the config when it is complete, before warnings: it may refuse it.

    Returns:
        The config.

    Raises:
        ConfigError: There is no such config, it or one of its bases cannot be read, or an override
            contradicts it.
    """
    path = find_config(name)
    cfg = read_config(path)
    settings = cfg.to_dict()
    try:
        cfg.merge_from_dict(dict(overrides or {}))
    except (TypeError, KeyError, IndexError) as error:
        reason = error.args[0] if error.args else type(error).__name__
        raise ConfigError(f"--cfg-options does not fit {path}: {reason}") from error
    if check is not None:
        check(cfg)
    for key in overrides or {}:
        doubt = _doubt_key(settings, key)
        if doubt and os.environ.get("RANK", "0") == "0":
            print(f"warning: the config has no {key}: {doubt}", file=sys.stderr)
    return cfg


def _doubt_key(settings: dict, key: str) -> str | None:
    """Says what is doubtful about a dotted key: that it looks misspelt, or that nothing reads it.

    Args:
        settings: A config as plain dicts and lists.
        key: Key of an override.

    Returns:
        The doubt, or None when `settings` has the key or it may well be meant.
    """
    node: Any = settings
    parts, known = key.split("."), []
    for part in parts:
        if isinstance(node, dict) and part in node:
            node = node[part]
        elif isinstance(node, list | tuple) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        else:
            break
        known.append(part)
    if known == parts or not isinstance(node, dict):
        return None  # it exists, or merging will refuse it
    unknown, *rest = parts[len(known) :]
    nearest = get_close_matches(unknown, [str(name) for name in node], n=1, cutoff=0.75)
    if nearest:
        return f"did you mean {'.'.join([*known, nearest[0], *rest])}?"
    # Below the top a new key is an argument of a class, which refuses those it does not know.
    return None if known or unknown in runner_keys() else "nothing may read it"


def runner_keys() -> set[str]:
    """Top-level keys of a config that mmengine or the tools read."""
    from mmengine.runner import Runner

    return {*inspect.signature(Runner.__init__).parameters, *OTHER_KEYS}
