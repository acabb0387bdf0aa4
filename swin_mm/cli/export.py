"""Writes a trained model as a file that runs without PyTorch."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swin_mm.cli.config import add_config_options, load_config
from swin_mm.cli.keys import check_keys
from swin_mm.cli.launch import check_checkpoint
from swin_mm.configs import ConfigError, find_scope

if TYPE_CHECKING:
    from swin_mm.export.check import Difference

FORMATS = {"onnx": ".onnx", "openvino": ".xml"}
# What is asked for and not there: better refused than half done.
MISSING = {
    "--format torch": "PyTorch's own archives are not written yet: use onnx or openvino",
    "--half": "files in half precision are not written yet; OpenVINO computes in bfloat16 where "
    "`INFERENCE_PRECISION_HINT` allows it",
    "--int8": "quantised files are not written yet; `onnxruntime.quantization` and `nncf` take the "
    "exported file",
}
EXAMPLES = """\
examples:
  swin-mm export mask_rcnn_swin_t epoch_12.pth
  swin-mm export my_config.py best.pth --format openvino --out deploy/model.xml
  swin-mm export upernet_swin_t best.pth --size 512x512 --batch 1
  swin-mm export mask_rcnn_swin_t epoch_12.pth --part neck

The file takes images (B, H, W, 3) uint8 in RGB, and is run beside the model before it is kept."""


def main(argv: Sequence[str] | None = None) -> None:
    """Exports as a command line says.

    Args:
        argv: Command line without the program's name; by default the process's own.

    Raises:
        ConfigError: The config or an option does not make sense.
        CheckpointError: The checkpoint cannot be used.
        ExportError: The model cannot be exported, or the file differs from it.
    """
    args = parse_args(argv)
    for option, is_given in (
        ("--format torch", args.format == "torch"),
        ("--half", args.half),
        ("--int8", args.int8 is not None),
    ):
        if is_given:
            raise ConfigError(f"{option}: {MISSING[option]}")
    cfg = load_config(args.config, args.cfg_options, check_keys)
    scope = find_scope(cfg)
    check_checkpoint(args.checkpoint)
    dataset = (cfg.get("test_dataloader") or {}).get("dataset")
    if dataset is None:
        raise ConfigError(f"{args.config} has no test_dataloader, which says how images are read")

    from mmengine.registry import init_default_scope

    from swin_mm.export.plan import make_plan
    from swin_mm.export.runtime import read_image
    from swin_mm.export.write import export_model
    from swin_mm.inference.model import load_model

    picture = read_image(args.image) if args.image else None

    init_default_scope(scope)
    model, meta = load_model(cfg, args.checkpoint)
    plan = make_plan(model.eval(), dataset, args.part)
    out = Path(args.out or Path(args.checkpoint).name).expanduser()
    out = out if args.out else out.with_suffix(FORMATS[args.format])
    print(f"exporting {plan.task} to {out}: recording takes a minute or several", flush=True)
    metadata, differences = export_model(
        plan, out, meta["classes"], args.format, args.size, args.batch, args.check, picture
    )
    report(out, metadata, differences)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Write a trained detector or segmentor as a file for onnxruntime or OpenVINO: "
        "from the pixels of an image to boxes and small masks, or a label map.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", help="path, or name of a config that comes with swin_mm")
    parser.add_argument("checkpoint", help="trained weights; they must be of the whole model")
    parser.add_argument(
        "--format", choices=[*FORMATS, "torch"], default="onnx", help="kind of file (%(default)s)"
    )
    parser.add_argument("--out", metavar="FILE", help="(name of the checkpoint, .onnx or .xml)")
    parser.add_argument(
        "--size", type=read_size, metavar="HxW", help="for images of one size (any size)"
    )
    parser.add_argument("--batch", type=int, metavar="N", help="for batches of one size (any)")
    parser.add_argument(
        "--part",
        choices=["model", "neck", "backbone"],
        default="model",
        help="all of it, or the feature maps of neck or backbone (%(default)s)",
    )
    parser.add_argument("--half", action="store_true", help="not available yet")
    parser.add_argument("--int8", metavar="DATA", help="not available yet")
    parser.add_argument(
        "--no-check",
        dest="check",
        action="store_false",
        help="do not run the file beside the model",
    )
    parser.add_argument("--image", metavar="FILE", help="picture to check it on (drawn ones)")
    add_config_options(parser)
    args = parser.parse_args(argv)
    if args.batch is not None and args.batch < 1:
        parser.error(f"--batch must be 1 or more, got {args.batch}")
    return args


def read_size(text: str) -> tuple[int, int]:
    """Reads height and width, such as `512x768`."""
    match = re.fullmatch(r"(\d+)x(\d+)", text.lower())
    if match is None or min(map(int, match.groups())) < 32:
        raise argparse.ArgumentTypeError(f"must be such as 512x768, from 32 pixels, got {text!r}")
    return int(match[1]), int(match[2])


def report(out: Path, metadata: dict[str, Any], differences: "Sequence[Difference]") -> None:
    """Prints what the file takes and how near it comes to the model."""
    size, batch = metadata["size"], metadata["batch"]
    sides = (
        f"{size[0]}x{size[1]}" if size else f"any size from {metadata['min_side']} pixels a side"
    )
    print(f"written: {out} ({out.stat().st_size / 2**20:.1f} MiB)")
    print(f"input: {batch or 'any number of'} images, {sides}; outputs: {metadata['outputs']}")
    for difference in differences:
        print(f"beside PyTorch, {difference.describe()}")
    if not differences:
        print("not checked beside PyTorch")
    if any(not difference.compared for difference in differences):
        print("warning: nothing was found in some pictures: give one with objects by --image")
