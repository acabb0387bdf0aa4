"""Draws what a trained model attends to at one pixel of an image."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from swin_mm.cli.config import add_config_options, load_config
from swin_mm.cli.launch import check_checkpoint
from swin_mm.cli.parser import CommandParser


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the sheet."""
    args = parse_args(argv)
    cfg = load_config(args.config, args.cfg_options)
    args.checkpoint = check_checkpoint(args.checkpoint)

    from swin_mm.analysis.explain import explain_pixel
    from swin_mm.analysis.explain_figure import draw_explanation
    from swin_mm.inference.model import Model

    model = Model(cfg, args.checkpoint, args.device)
    out = Path(args.out).expanduser()
    draw_explanation(explain_pixel(model, args.image, tuple(args.pixel)), out)
    print(f"attention and feature maps: {out}")


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser(
        description="Draw what a trained model attends to at one pixel: for each block the "
        "attention weights of the window, shifted or not, that the pixel is in, and how much "
        "larger surroundings add (mixed context); and the feature map of each stage.",
    )
    parser.add_argument("config", help="path, or name of a config that comes with swin_mm")
    parser.add_argument(
        "checkpoint", help="trained weights of the whole model, or a name of `swin-mm weights`"
    )
    parser.add_argument("image", help="a file or an address")
    parser.add_argument(
        "--pixel",
        type=int,
        nargs=2,
        required=True,
        metavar=("X", "Y"),
        help="column and row in the image, from 0 at the upper left",
    )
    parser.add_argument(
        "--out", default="explanation.png", metavar="FILE.png", help="(%(default)s)"
    )
    parser.add_argument("--device", help="such as cpu or cuda:1 (a GPU if there is one)")
    add_config_options(parser)
    return parser.parse_args(argv)
