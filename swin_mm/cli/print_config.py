"""Prints a config as it is after all bases and overrides, or lists those that come with swin_mm."""

import ast
from collections.abc import Sequence
from pathlib import Path

from swin_mm.cli.config import add_config_options, load_config
from swin_mm.cli.parser import CommandParser
from swin_mm.configs import ConfigError, packaged_configs

SUFFIXES = (".py", ".json", ".yml", ".yaml")


def main(argv: Sequence[str] | None = None) -> None:
    """Prints one config, or without a name the list of configs."""
    parser = CommandParser(
        description="Print a config with its bases filled in, or without CONFIG list the configs "
        "that come with swin_mm."
    )
    parser.add_argument("config", nargs="?", help="path, or name of a config that comes along")
    parser.add_argument("--save-path", metavar="FILE", help="write it here too: .py, .json or .yml")
    add_config_options(parser)
    args = parser.parse_args(argv)

    if args.config is None:
        configs = packaged_configs()
        width = max(map(len, configs)) + 2
        for name, path in configs.items():
            print(f"{name:<{width}}{_first_line(path)}")
        return
    if args.save_path and Path(args.save_path).suffix not in SUFFIXES:
        raise ConfigError(f"--save-path must end in one of {SUFFIXES}, got {args.save_path}")
    cfg = load_config(args.config, args.cfg_options)
    print(cfg.pretty_text, end="")
    if args.save_path:
        Path(args.save_path).parent.mkdir(parents=True, exist_ok=True)
        cfg.dump(args.save_path)


def _first_line(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    return docstring.splitlines()[0] if docstring else ""
