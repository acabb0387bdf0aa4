"""Serves a page to try a model on, to this machine alone."""

import argparse
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from swin_mm.cli.config import add_config_options, add_trust_option
from swin_mm.cli.parser import CommandParser
from swin_mm.configs import ConfigError

EXAMPLES = """\
examples:
  swin-mm demo my_config.py work_dirs/my_config/best.pth
  swin-mm demo mask_rcnn_swin_t_3x
  swin-mm demo my_model.onnx --port 8000

It needs gradio: pip install 'swin-mm[demo]'. The page is for this machine alone (127.0.0.1), and
fetches nothing from elsewhere."""


def main(argv: Sequence[str] | None = None) -> None:
    """Serves the page until it is interrupted."""
    args = parse_args(argv)
    if find_spec("gradio") is None:
        raise ConfigError("swin-mm demo needs gradio: pip install 'swin-mm[demo]'")

    import swin_mm
    from swin_mm.inference.page import build_page, serve_page

    model = swin_mm.load(args.model, args.checkpoint, args.device, args.cfg_options, args.trust)
    serve_page(build_page(model, f"swin_mm: {Path(args.model).name}"), args.port)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser(
        description="Serve a page to try a detector or segmentor on: drop an image or a video, "
        "choose score and view, see what is found, download it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model",
        metavar="config|name|file",
        help="config, name of published weights or of a recipe that has some, checkpoint of "
        "training, or exported file",
    )
    parser.add_argument("checkpoint", nargs="?", help="trained weights of a config")
    parser.add_argument("--device", help="such as cpu or cuda:1 (a GPU if there is one)")
    parser.add_argument("--port", type=int, metavar="N", help="(the first free from 7860 on)")
    add_trust_option(parser)
    add_config_options(parser)
    return parser.parse_args(argv)
