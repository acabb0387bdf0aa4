"""Checks all data of a config and says what it is made of."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmengine.config import Config
from rich import box
from rich.table import Table

from swin_mm.cli.config import add_config_options, load_config
from swin_mm.cli.parser import CommandParser
from swin_mm.console import PlainConsole

if TYPE_CHECKING:
    from swin_mm.datasets.check import Inspection

SPLITS = ("train", "val", "test")


def main(argv: Sequence[str] | None = None) -> int:
    """Checks the data of one config; returns 1 if there are faults, or warnings with `--strict`."""
    args = parse_args(argv)
    cfg = load_config(args.config, args.cfg_options)

    from swin_mm.datasets.check import inspect_config

    folder = Path(args.output_dir or f"work_dirs/{Path(args.config).stem}/data")
    splits = args.splits or tuple(split for split in SPLITS if cfg.get(f"{split}_dataloader"))
    console = PlainConsole(soft_wrap=True)
    found = inspect_config(cfg, splits)
    for table in (describe_splits(found), describe_classes(found)):
        if table.row_count:
            console.print(table)
    folder.mkdir(parents=True, exist_ok=True)
    for line in write_pictures(found, cfg, folder, args.samples) + write_unreadable(found, folder):
        console.print(line)
    warnings = found.summary.warnings()
    for heading, lines in (("warning", warnings), ("fault", found.faults)):
        for line in lines:
            console.print(f"{heading}: {line}")
    print(f"{len(found.faults)} faults, {len(warnings)} warnings")
    return 1 if found.faults or (args.strict and warnings) else 0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser(
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Check all data of a config: annotations, classes, boxes, masks, label maps\n"
        "and every image. Prints what the data is made of, and every fault.",
        epilog="exit status: 0 no faults, 1 faults (or the config cannot be read), 2 a wrong\n"
        "command line. Faults are what training or testing fails on or silently gets wrong;\n"
        "warnings are what they take, such as images without objects (COCO has them too).",
    )
    parser.add_argument("config", help="path, or name of a config that comes with swin_mm")
    parser.add_argument(
        "--splits", nargs="+", choices=SPLITS, help="check these (default: all of the config)"
    )
    parser.add_argument(
        "--output-dir",
        metavar="FOLDER",
        help="put picture sheets and the list of unreadable files here (default: "
        "work_dirs/CONFIG/data)",
    )
    parser.add_argument(
        "--samples",
        type=int,
        default=24,
        metavar="N",
        help="pictures on a sheet (default: %(default)s; 0: no sheets)",
    )
    parser.add_argument(
        "--strict", action="store_true", help="exit with status 1 for warnings as well"
    )
    add_config_options(parser)
    return parser.parse_args(argv)


def describe_splits(found: "Inspection") -> Table:
    """Returns a table of images and objects."""
    table = Table("data", "images", "objects", "without", box=box.SIMPLE)
    for name, split in found.summary.splits.items():
        objects = "label maps" if split.instances is None else f"{split.instances:,}"
        counts = [f"{split.images:,}", objects, f"{split.empty:,}"]
        table.add_row(name, *(counts if split.images else ["not checked", "", ""]))
    return table


def describe_classes(found: "Inspection") -> Table:
    """Returns a table of objects, or shares of labelled pixels, per class."""
    splits = found.summary.splits
    table = Table("", "class", box=box.SIMPLE)
    for name in splits:
        table.add_column(name, justify="right")
    for index, label in enumerate(found.summary.classes):
        cells = []
        for split in splits.values():
            value = split.per_class.get(label)
            is_share = split.instances is None
            cells.append("" if value is None else f"{value:.2%}" if is_share else f"{value:,.0f}")
        table.add_row(str(index), label, *cells)
    return table


def write_pictures(found: "Inspection", cfg: Config, folder: Path, count: int) -> list[str]:
    """Draws a sheet of samples of each data loader; returns what to say of it."""
    from swin_mm.datasets.picture import choose_palette, sample_sheet
    from swin_mm.datasets.samples import build_dataset, draw_evenly

    lines = []
    for split in found.summary.splits if count else ():
        path = folder / f"{split}.png"
        try:
            dataset = build_dataset(cfg, split, as_filed=True)
            classes = dataset.metainfo["classes"]
            samples = list(draw_evenly(dataset, count, len(classes)))
            sample_sheet(samples, path, classes, choose_palette(dataset.metainfo))
        except Exception as error:  # libraries fail on faulty data in any way
            if not (found.faults or found.unreadable):
                raise
            lines.append(f"{split}: no pictures, because of the faults below ({error})")
        else:
            lines.append(f"{split}: pictures in {path}")
    return lines


def write_unreadable(found: "Inspection", folder: Path) -> list[str]:
    """Writes the list of files that cannot be read, if there are any; returns what to say of it."""
    path = folder / "unreadable.txt"
    path.unlink(missing_ok=True)  # of an earlier check
    if not found.unreadable:
        return []
    path.write_text("".join(f"{name}\n" for name in sorted(found.unreadable)))
    return [f"{len(found.unreadable)} files cannot be read: {path} lists them"]
