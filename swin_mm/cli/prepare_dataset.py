"""Fetches public data sets and puts them where configs look for them."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from swin_mm.cli.parser import CommandParser
from swin_mm.datasets.prepare import RECIPES, prepare_dataset


def main(argv: Sequence[str] | None = None) -> None:
    """Puts one data set in place."""
    args = parse_args(argv)
    recipe = RECIPES[args.dataset]
    print(f"{recipe.title}\nterms of use: {recipe.home}")
    folder = prepare_dataset(
        recipe,
        folder=args.folder,
        parts=args.parts,
        archives=args.archives,
        mirror=args.mirror,
        check=not args.no_checksum,
        delete=args.delete,
        threads=args.threads,
        log=lambda line: print(line, flush=True),
    )
    print(f"{args.dataset} is ready in {folder}")


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    lines = [f"  {name:<12}{recipe.folder:<17}{recipe.title}" for name, recipe in RECIPES.items()]
    parts = [f"{name}: {', '.join(r.parts())}" for name, r in RECIPES.items() if r.parts()]
    parser = CommandParser(
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Fetch a public data set, check it, unpack it where configs look for it, and\n"
        "count its files. What is there already is left alone; a run that was cut short\n"
        "goes on where it stopped.",
        epilog="data sets (name, folder, what it is):\n" + "\n".join(lines),
    )
    parser.add_argument("dataset", choices=RECIPES, help="one of the list below")
    parser.add_argument(
        "--folder", type=Path, help="put it here (then set data_root in the config, or link to it)"
    )
    parser.add_argument(
        "--parts",
        nargs="+",
        default=[],
        metavar="PART",
        help=f"also fetch what few need ({'; '.join(parts)})",
    )
    parser.add_argument(
        "--archives",
        type=Path,
        metavar="FOLDER",
        help="use archives that lie here, and fetch the others to here (default: downloads in the "
        "data set's folder)",
    )
    parser.add_argument(
        "--mirror", metavar="URL", help="fetch URL/ARCHIVE instead of the publisher's"
    )
    parser.add_argument(
        "--no-checksum", action="store_true", help="take archives that differ from the known ones"
    )
    parser.add_argument(
        "--delete", action="store_true", help="delete archives once they are fetched and unpacked"
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=min(8, os.cpu_count() or 1),
        metavar="N",
        help="label maps of Cityscapes to convert at once (default: %(default)s)",
    )
    return parser.parse_args(argv)
