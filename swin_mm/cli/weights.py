"""Lists published weights that are known by name."""

import argparse
from collections.abc import Sequence
from fnmatch import fnmatch

from swin_mm.checkpoint.published import list_weights
from swin_mm.cli.parser import CommandParser

WIDTH = 27  # of the column of names
EXAMPLES = """\
examples:
  swin-mm weights "mask2former*"
  swin-mm train mask_rcnn_swin_t_3x --weights mask_rcnn_swin_t_3x
  swin-mm init-config my_data --weights mask_rcnn_swin_t_3x
  python -c "import swin_mm; swin_mm.load('mask_rcnn_swin_t_3x').predict('a.jpg').save('b.jpg')"
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Lists published weights; returns 1 where none matches."""
    parser = CommandParser(
        description="List published detectors and segmentors with a Swin backbone. Each name "
        "serves as --weights and in swin_mm.load; it is that of the config they fit, or that one "
        "is named behind it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("pattern", nargs="?", default="*", help="of names or recipes ('*dino*')")
    pattern = parser.parse_args(argv).pattern
    chosen = [
        weights
        for weights in list_weights()
        if any(fnmatch(name, pattern) for name in (weights.name, weights.recipe or ""))
    ]
    if not chosen:
        print(f"no published weights match {pattern}")
        return 1
    chosen.sort(key=lambda weights: weights.recipe is None)  # ours first
    taken: set[str | None] = set()
    indent, column = " " * WIDTH, max(len(weights.dataset) for weights in chosen)
    for weights in chosen:
        short = weights.recipe not in taken and weights.recipe
        taken.add(weights.recipe)
        name = short or weights.name
        metrics = ", ".join(f"{key} {value:g}" for key, value in weights.metrics.items())
        if weights.recipe and not short:
            metrics += f"\n{indent}  fits {weights.recipe}"
        # Names are whole, so that they can be copied, and the rest of long ones is below.
        head = f"{name:<{WIDTH}}" if len(name) <= WIDTH else f"{name}\n{indent}"
        print(f"{head}  {weights.dataset:<{column}} {metrics}")
    return 0
