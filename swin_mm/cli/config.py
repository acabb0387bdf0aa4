"""Reads configs for a command, and checks what is overridden on the command line."""

import argparse
import re
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config, DictAction

from swin_mm.cli.overrides import DELETE, apply_overrides, check_new_keys, check_top_keys
from swin_mm.configs import find_config, fit_to_workers, read_config

INNER_BLANKS = re.compile(r"(?<=[^\s,(\[]) +(?=[^\s,)\]])")  # in a list, those within a text
DICT = re.compile(r"""(^|[\[(,])\s*(dict\(|\{\s*['"])""")  # as a value or within a list
KEPT_BLANK = "\ue000"
LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")


def share(text: str) -> float:
    """Reads a number from 0 to 1, for argparse."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be from 0 to 1, got {value:g}")
    return value


def positive(text: str) -> int:
    """Reads a whole number above 0, for argparse."""
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, got {text!r}")
    return int(text)


def image_size(text: str) -> tuple[int, int]:
    """Reads height and width in pixels, such as `512x768`, for argparse."""
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text, re.ASCII)
    if match is None:
        raise argparse.ArgumentTypeError(f"must be HEIGHTxWIDTH in pixels, got {text!r}")
    return int(match[1]), int(match[2])


class KeyValueAction(DictAction):
    """mmengine's reader of `KEY=VALUE`, with an error that says what is wrong."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        for value in values:
            key, equals, text = value.partition("=")
            if not (key and equals):
                parser.error(f"{option_string} takes KEY=VALUE, got {value!r}")
            if "," in text and DICT.search(text):  # others are refused with the config
                parser.error(
                    f"{option_string} takes no dict, got {value!r}: give {key}.NAME=VALUE for each "
                    f"of its keys ({key}.{DELETE}=True empties it first)"
                )
        try:
            super().__call__(parser, namespace, values, option_string)
        except AssertionError as error:  # of brackets that do not match
            parser.error(f"{option_string}: {error}")

    @staticmethod
    def _parse_iterable(value: str) -> Any:
        """As mmengine's, which takes all blanks out, those in paths too."""
        value = value.strip("'\"").strip()
        if "," not in value and value[:1] + value[-1:] not in ("()", "[]"):
            return DictAction._parse_int_float_bool(value)
        kept = INNER_BLANKS.sub(lambda found: len(found[0]) * KEPT_BLANK, value)
        return _restore_blanks(DictAction._parse_iterable(kept))


def _restore_blanks(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map(_restore_blanks, value))
    return value.replace(KEPT_BLANK, " ") if isinstance(value, str) else value


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--cfg-options` to a command."""
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=KeyValueAction,
        default={},
        metavar="KEY=VALUE",
        help="change settings of the config: model.backbone.drop_path_rate=0.2; lists as "
        'key=a,b or key=[a,b], nested ones as key="[(a,b),(c,d)]"',
    )


def add_trust_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--trust` to a command that takes exported files."""
    parser.add_argument(
        "--trust",
        action="store_true",
        help="run the code that a .pt2 file holds, which only who made it can vouch for",
    )


def load_config(name: str, overrides: Mapping[str, Any] | None = None) -> Config:
    """Reads a config, by path or the name of one that comes with swin_mm, and applies overrides.

    Variables of the config's files are changed before the files are evaluated. A `ConfigError` says
    what cannot be read, does not fit, is misspelt or would change nothing.
    """
    cfg = read_config(find_config(name))
    if overrides:
        before = cfg.to_dict()
        cfg = apply_overrides(cfg, overrides)
        check_new_keys(before, cfg, overrides)
    check_top_keys(cfg)
    for loader in map(cfg.get, LOADERS):
        if isinstance(loader, dict):
            fit_to_workers(loader)
    return cfg
