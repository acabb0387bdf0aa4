"""Counts the parameters and multiply-adds of a config's model, part by part."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from swin_mm.cli.config import add_config_options, load_config, positive
from swin_mm.cli.parser import CommandParser
from swin_mm.configs import ConfigError, find_scope

if TYPE_CHECKING:
    from swin_mm.analysis.flops import Complexity

NOTE = """\
Multiply-adds are what papers call FLOPs; multiplications and additions are twice as many.
Counted: convolutions, linear layers, and products of activations (attention, masks from queries).
Not counted: norms, activations, resizing, sampling (RoIAlign, deformable attention), NMS."""


def main(argv: Sequence[str] | None = None) -> None:
    """Counts for one config."""
    args = parse_args(argv)
    cfg = load_config(args.config, args.cfg_options)
    find_scope(cfg)

    from swin_mm.analysis.flops import count_complexity, usual_shape

    shape = tuple(args.shape) if args.shape else usual_shape(cfg)
    if shape is None:
        raise ConfigError("the data of this config has no usual image size: give --shape H W")
    show(count_complexity(cfg, shape))


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser(
        description="Count parameters and multiply-adds of a config's model for one image, part "
        "by part. Neither weights nor data are needed."
    )
    parser.add_argument("config", help="path, or name of a config that comes with swin_mm")
    parser.add_argument(
        "--shape",
        nargs=2,
        type=positive,
        metavar=("H", "W"),
        help="image size in pixels (what published tables have: 800 1280 for COCO, the crop by "
        "four times its side for ADE20K, 1024 2048 for Cityscapes)",
    )
    add_config_options(parser)
    return parser.parse_args(argv)


def show(complexity: "Complexity") -> None:
    """Prints a table of the parts, and the sums as papers print them."""
    from swin_mm.console import PlainConsole, make_table

    rows = []
    for part in (*complexity.parts, complexity.total):
        counts = (part.convolutions, part.linear, part.attention, part.multiply_adds)
        numbers = (part.parameters / 1e6, *(count / 1e9 for count in counts))
        rows.append((part.name, *(f"{number:.2f}" for number in numbers)))
    columns = ("part", "params, M", "conv, G", "linear, G", "attention, G", "sum, G")
    title = f"{complexity.model}, one image of {complexity.shape[0]} x {complexity.shape[1]}"
    PlainConsole().print(make_table(rows, columns, title, numbers=True))
    giga = complexity.total.multiply_adds / 1e9
    print(
        f'{giga:.1f} G multiply-adds ("{giga:.0f} GFLOPs" in papers) = {2 * giga:.1f} G '
        f"multiplications and additions\n{NOTE}"
    )
