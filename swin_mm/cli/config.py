"""Finds configs by path or name, reads them, and checks what is overridden on the command line."""

import argparse
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from traceback import walk_tb
from typing import Any

from mmengine.config import Config, DictAction

import swin_mm
from swin_mm.cli.errors import ConfigError

CONFIG_FOLDER = Path(swin_mm.__file__).parent / ".mim" / "configs"

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


# Functions of `mmengine.config.Config` that read one file.
READERS = ("_file2dict", "_is_lazy_import", "_parse_lazy_import")


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


def packaged_configs() -> dict[str, Path]:
    """The configs that come with swin_mm, by short name."""
    return {path.stem: path for path in sorted(CONFIG_FOLDER.glob("*.py"))}


def find_config(name: str) -> Path:
    """Finds a config.

    Args:
        name: A path, or the name of a config that comes with swin_mm, with or without `.py`.

    Returns:
        The file.

    Raises:
        ConfigError: There is none; names the nearest.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    known = packaged_configs()
    short = name.removesuffix(".py")
    if short in known:
        return known[short]
    nearest = get_close_matches(path.stem, known, n=3, cutoff=0.4)
    hint = f"; nearest: {', '.join(nearest)}" if nearest else ""
    raise ConfigError(
        f"no config {name!r}: neither a file nor the name of a config of swin_mm{hint} "
        "(`swin-mm print-config` lists them)"
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
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # a config is code and can fail in any way
        raise ConfigError(f"cannot read config {_describe_failure(path, error)}") from error
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


def _describe_failure(path: Path, error: Exception) -> str:
    """Says which file of the chain of bases failed, in which line, and why."""
    chain, line = [str(path)], None
    for frame, number in walk_tb(error.__traceback__):
        # mmengine's readers keep the file they are at in `filename`; its code runs under its name.
        if frame.f_code.co_name in READERS:
            chain.append(str(frame.f_locals.get("filename")))
        elif frame.f_code.co_filename == chain[-1]:
            line = number
    file = next(name for name in reversed(chain) if Path(name).is_file())
    if isinstance(error, SyntaxError):
        return f"{file}, line {error.lineno}: {error.msg}: {(error.text or '').strip()}"
    reason = error.args[0] if len(error.args) == 1 else error
    if isinstance(error, FileNotFoundError):
        return f"{file}: one of its bases is missing: {error.filename or reason}"
    place = file if line is None else f"{file}, line {line}"
    return f"{place}: {type(error).__name__}: {reason}"


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
