"""Draws the built-in shapes data."""

from collections.abc import Sequence

from swin_mm.cli.parser import CommandParser
from swin_mm.datasets.shapes import PRESETS, write_shapes


def main(argv: Sequence[str] | None = None) -> None:
    """Draws one preset, unless it is there."""
    parser = CommandParser(description="Draw the built-in shapes data; browse-dataset shows it.")
    parser.add_argument("preset", nargs="?", default="standard", choices=PRESETS)
    parser.add_argument("--root", default="data/shapes", help="folder of all presets (%(default)s)")
    args = parser.parse_args(argv)
    print(f"{args.preset}: {write_shapes(args.root, args.preset)}")
