"""Writes a trained model as a file that runs without PyTorch."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from swin_mm.cli.config import add_config_options, image_size, load_config, positive
from swin_mm.cli.launch import check_checkpoint
from swin_mm.cli.next_steps import print_next
from swin_mm.cli.parser import CommandParser
from swin_mm.export.runtime import SUFFIXES

if TYPE_CHECKING:
    from swin_mm.export.write import ExportResult

OPTIONS = ("format", "part", "size", "batch", "half", "int8", "val_images", "check", "image")
EXAMPLES = """\
examples:
  swin-mm export mask_rcnn_swin_t epoch_12.pth
  swin-mm export my_config.py best.pth --format openvino --out deploy/model.xml
  swin-mm export upernet_swin_t best.pth --size 512x512 --batch 1
  swin-mm export mask_rcnn_swin_t epoch_12.pth --part neck
  swin-mm export mask_rcnn_swin_t epoch_12.pth --int8 data/coco/train2017

The file takes images (B, H, W, 3) uint8 in RGB, and is run beside the model before it is kept."""


def main(argv: Sequence[str] | None = None) -> None:
    """Exports one model."""
    args = parse_args(argv)
    cfg = load_config(args.config, args.cfg_options)
    args.checkpoint = check_checkpoint(args.checkpoint)
    suffix = SUFFIXES[args.format or "onnx"]
    out = Path(args.out or Path(args.checkpoint).with_suffix(suffix).name)

    from swin_mm.export.write import check_request
    from swin_mm.inference.model import Model

    precision = "int8" if args.int8 else "half" if args.half else "float32"
    check_request(out, args.format, args.size, args.batch, precision)
    model = Model(cfg, args.checkpoint, "cpu")
    print(f"exporting to {out}: recording takes a minute or several", flush=True)
    options = {name: value for name, value in vars(args).items() if name in OPTIONS}
    report(model.export(out, **options))


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser(
        description="Write a trained detector or segmentor as a file for onnxruntime, OpenVINO or "
        "AOTInductor: from the pixels of an image to boxes and small masks, or a label map.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", help="path, or name of a config that comes with swin_mm")
    parser.add_argument(
        "checkpoint", help="trained weights of the whole model, or a name of `swin-mm weights`"
    )
    parser.add_argument(
        "--format",
        choices=list(SUFFIXES),
        help="kind of file (what --out ends in, else onnx); torch is a package of AOTInductor",
    )
    suffixes = ", ".join(SUFFIXES.values())
    parser.add_argument("--out", metavar="FILE", help=f"(name of the checkpoint, {suffixes})")
    parser.add_argument(
        "--size", type=image_size, metavar="HxW", help="for images of one size (any size)"
    )
    parser.add_argument("--batch", type=positive, metavar="N", help="for batches of one size (any)")
    parser.add_argument(
        "--part",
        choices=["model", "neck", "backbone"],
        default="model",
        help="all of it, or the feature maps of neck or backbone (%(default)s)",
    )
    lower = parser.add_mutually_exclusive_group()
    lower.add_argument("--half", action="store_true", help="weights in half precision")
    lower.add_argument(
        "--int8", metavar="IMAGES", help="8-bit integers, calibrated on a folder of images"
    )
    parser.add_argument(
        "--val-images",
        type=int,
        default=200,
        metavar="N",
        help="of val_dataloader, to measure --half and --int8 on (%(default)s)",
    )
    parser.add_argument(
        "--no-check",
        dest="check",
        action="store_false",
        help="do not run the file beside the model",
    )
    parser.add_argument("--image", metavar="FILE", help="picture to check it on (drawn ones)")
    add_config_options(parser)
    return parser.parse_args(argv)


def report(result: "ExportResult") -> None:
    """Prints what the file takes and how near it comes to the model."""
    out, metadata = result.path, result.metadata
    size, batch = metadata["size"], metadata["batch"]
    sides = (
        f"{size[0]}x{size[1]}" if size else f"any size from {metadata['min_side']} pixels a side"
    )
    weights = out.with_suffix(".bin")  # of OpenVINO
    size_bytes = sum(f.stat().st_size for f in {out, weights} if f.exists())
    print(f"written: {out} ({size_bytes / 2**20:.1f} MiB)")
    print(f"input: {batch or 'any number of'} images, {sides}; outputs: {metadata['outputs']}")
    for difference in result.differences:
        print(f"beside PyTorch, {difference.describe()}")
    for name, (before, after) in metadata.get("metrics", {}).items():
        print(f"{name}: {before:.4g} in float32, {after:.4g} in {metadata['precision']}")
    if not result.differences:
        print("not checked beside PyTorch")
    if any(not difference.compared for difference in result.differences):
        print("warning: nothing was found in some pictures: give one with objects by --image")
    if metadata["task"] != "features":
        print_next(["predict", out, "IMAGES"])
