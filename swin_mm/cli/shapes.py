"""Draws the built-in shapes data, and a sheet of samples to look at."""

from collections.abc import Sequence

import numpy as np

from swin_mm.cli.parser import CommandParser
from swin_mm.datasets.picture import sample_sheet
from swin_mm.datasets.shapes import CLASSES, PALETTE, PRESETS, draw_scene, write_shapes
from swin_mm.datasets.shapes.write import FIRST_SEED
from swin_mm.structures import Objects, to_runs

SAMPLES = 24


def main(argv: Sequence[str] | None = None) -> None:
    """Draws one preset, unless it is there, and if asked a sheet of its first images."""
    parser = CommandParser(description="Draw the built-in shapes data.")
    parser.add_argument("preset", nargs="?", default="standard", choices=PRESETS)
    parser.add_argument("--root", default="data/shapes", help="folder of all presets (%(default)s)")
    parser.add_argument("--sheet", metavar="PNG", help="draw a sheet of training samples here")
    args = parser.parse_args(argv)

    folder = write_shapes(args.root, args.preset)
    print(f"{args.preset}: {folder}")
    if args.sheet:
        sample_sheet(_draw_samples(args.preset), args.sheet, CLASSES, PALETTE)
        print(f"samples: {args.sheet}")


def _draw_samples(preset: str) -> list[tuple[np.ndarray, Objects]]:
    scenes = [draw_scene(FIRST_SEED["train"] + index, preset) for index in range(SAMPLES)]
    return [(s.image, Objects(s.classes, s.boxes(), masks=to_runs(s.masks))) for s in scenes]
