"""Rewrites the backbone of a checkpoint in the layout of another library."""

import argparse
import io
from collections.abc import Sequence
from pathlib import Path

import torch

from swin_mm.checkpoint import CheckpointError, load_checkpoint_file
from swin_mm.checkpoint.convert import convert
from swin_mm.checkpoint.files.sharded import is_sharded
from swin_mm.checkpoint.find import Backbone
from swin_mm.checkpoint.finite import check_finite
from swin_mm.checkpoint.layouts import LAYOUTS, Layout, State
from swin_mm.checkpoint.report import list_names
from swin_mm.cli.inspect_checkpoint import add_prefix_option, describe_model, find_in_file
from swin_mm.cli.parser import CommandParser
from swin_mm.configs import ConfigError
from swin_mm.engine.checkpoint_files import write_atomically
from swin_mm.engine.sharded_checkpoint import make_file
from swin_mm.text import printable

# By their names on the command line.
TARGETS = {layout.name.lower().replace(" ", ""): layout for layout in LAYOUTS}
# Where a library keeps the weights in its `.pth` files, if not at the top.
WRAPPER_OF = {"Microsoft": "model"}
SUFFIXES = (".pth", ".bin", ".safetensors")


def main(argv: Sequence[str] | None = None) -> None:
    """Converts one checkpoint."""
    args = parse_args(argv)
    path = Path(args.target).expanduser()
    check_target(path, args.force)
    if args.to is None:
        join_folder(Path(args.source).expanduser(), path)
        return
    layout = TARGETS[args.to]
    source = find_in_file(args.source, load_checkpoint_file(args.source), args.prefix)
    print(f"{args.source}: {describe_source(source)}")
    try:
        if source.unknown:
            raise CheckpointError(
                f"the {source.layout.name} layout has no {list_names(source.unknown)}"
            )
        check_finite(source.source, "it")
        converted = convert(source.state, layout)
    except CheckpointError as error:
        message = f"cannot convert {args.source} to the {layout.name} layout: {error}"
        raise CheckpointError(message) from error
    write_atomically(path, encode(converted.state, layout, path.suffix))
    left_out = f", without {list_names(converted.left_out)}" if converted.left_out else ""
    print(f"{path}: {len(converted.state)} tensors in the {layout.name} layout{left_out}")


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser(
        description="Rewrite the backbone of a checkpoint in the layout of another library. "
        "The layout of SRC is recognised. The backbone alone is written, without prefix: necks, "
        "heads, classifiers and optimizers are counted and dropped. Without --to, everything in "
        "the folder that a training with --shard saved is written as one file."
    )
    parser.add_argument("source", metavar="SRC", help="checkpoint to read")
    parser.add_argument("target", metavar="DST", help=f"file to write ({', '.join(SUFFIXES)})")
    parser.add_argument("--to", choices=TARGETS, help="layout to write; mmdet is mmseg's too")
    add_prefix_option(parser)
    parser.add_argument("--force", action="store_true", help="overwrite DST")
    return parser.parse_args(argv)


def join_folder(folder: Path, path: Path) -> None:
    """Writes the folder of a sharded training as one file, which resumes and tests alike."""
    if folder.exists() and not is_sharded(folder):
        raise ConfigError(
            f"--to is needed, with one of {', '.join(TARGETS)}: without it, SRC must be a folder "
            f"that a training with --shard saved, {folder} is none"
        )
    if path.suffix == ".safetensors":
        raise ConfigError(f"DST must end in .pth: safetensors holds weights alone, got {path}")
    make_file(folder, path)
    print(f"{path}: the whole checkpoint {folder}")


def check_target(path: Path, force: bool) -> None:
    """Checks, before any work, that a file can be written; `force` allows to replace one."""
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"DST must end in one of {', '.join(SUFFIXES)}, got {path}")
    if path.is_dir():
        raise ConfigError(f"DST must be a file, {path} is a folder")
    if path.exists() and not force:
        raise ConfigError(f"{path} exists; --force overwrites it")


def describe_source(source: Backbone) -> str:
    """Says what was recognised, and how much of the file is dropped."""
    parts = [f"{source.layout.name} layout", describe_model(source)]
    if source.prefix:
        parts.append(f"prefix {source.prefix}")
    dropped = [list_names([*source.unused, *source.others]), *source.beside]
    if any(dropped):
        parts.append(f"dropped {', '.join(filter(None, dropped))}")
    return printable(", ".join(parts))


def encode(state: State, layout: Layout, suffix: str) -> bytes:
    """Makes the content of a checkpoint file, where the layout's library looks for it."""
    if suffix == ".safetensors":
        from safetensors.torch import save

        # transformers does not load a file without it.
        return save(state, metadata={"format": "pt"})
    wrapper = WRAPPER_OF.get(layout.name)
    buffer = io.BytesIO()
    torch.save(state if wrapper is None else {wrapper: state}, buffer)
    return buffer.getvalue()
