"""Fetches public data sets and puts them where configs look for them."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from swin_mm.cli.parser import CommandParser
from swin_mm.datasets.prepare import DATA_SETS, prepare_dataset


def main(argv: Sequence[str] | None = None) -> None:
    """Puts one data set in place."""
    args = parse_args(argv)
    data = DATA_SETS[args.dataset]
    print(f"{data.title}\nterms of use: {data.home}")
    folder = prepare_dataset(
        data,
        args.folder,
        args.parts,
        args.mirror,
        args.delete,
        log=lambda line: print(line, flush=True),
    )
    print(f"{args.dataset} is ready in {folder}")


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    lines = [f"  {name:<12}{data.folder:<17}{data.title}" for name, data in DATA_SETS.items()]
    parts = [f"{name}: {', '.join(d.parts())}" for name, d in DATA_SETS.items() if d.parts()]
    parser = CommandParser(
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Fetch a public data set, check it, unpack it where configs look for it, and\n"
        "count its files. What is there is left alone, also archives in FOLDER/downloads;\n"
        "a run that was cut short goes on where it stopped.",
        epilog="data sets (name, folder, what it is):\n" + "\n".join(lines),
    )
    parser.add_argument("dataset", choices=DATA_SETS, help="one of the list below")
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
        "--mirror", metavar="URL", help="fetch URL/ARCHIVE instead of the publisher's"
    )
    parser.add_argument(
        "--delete", action="store_true", help="delete archives once they are fetched and unpacked"
    )
    return parser.parse_args(argv)
