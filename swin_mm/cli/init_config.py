"""Writes a config for one's own data."""

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from swin_mm.cli.config import positive
from swin_mm.cli.next_steps import print_next, shorten
from swin_mm.cli.parser import CommandParser

EXAMPLES = """\
examples:
  swin-mm init-config FOLDER
  swin-mm init-config FOLDER --weights mask_rcnn_swin_t_3x
  swin-mm init-config --coco train.json val.json
  swin-mm init-config --coco all.json --images photos --method cascade --backbone small
  swin-mm init-config --images img/train img/val --masks lab/train lab/val --classes road car sky

Written is a short config that builds on a recipe of swin_mm (`swin-mm print-config` lists them).
It says how each number was chosen, and is there to be changed."""


def main(argv: Sequence[str] | None = None) -> None:
    """Writes one config."""
    args = parse_args(argv)
    import torch

    from swin_mm.console import PlainConsole
    from swin_mm.init_config import Options, init_detection, init_folder, init_segmentation

    is_auto, args.all_flips = args.preset == "auto", args.flip == "all"
    if is_auto:
        args.preset = "full" if torch.cuda.is_available() or args.weights else "small"
    options = Options(**{field.name: getattr(args, field.name) for field in fields(Options)})
    if args.folder:
        written = init_folder(args.folder, args.images, args.classes, options)
    elif args.coco:
        written = init_detection(args.coco, args.images, options)
    else:
        written = init_segmentation(args.masks, args.images, args.classes, options)
    console = PlainConsole(soft_wrap=True)
    if written.found:
        console.print(f"found:   {written.found}")
    console.print(f"data:    {written.data}\nmodel:   {written.model}")
    if is_auto:
        reason = "no GPU is here; --preset full for one"
        if args.preset == "full":
            reason = "of the weights" if args.weights else "a GPU is here"
        print(f"preset:  {args.preset} ({reason})")
    for note in written.notes:
        console.print(f"note:    {note}")
    print(f"written: {', '.join(map(shorten, written.files))}")
    print_next(
        ["browse-dataset", written.config],
        ["train", written.config],
        ["test", written.config, written.checkpoint, "--show-dir", "pictures"],
        ["predict", written.config, written.checkpoint, "IMAGES"],
    )


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser(
        description="Write a config that trains a detector or a segmentor on your own data.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    data = parser.add_argument_group("data")
    kind = data.add_mutually_exclusive_group(required=True)
    kind.add_argument(
        "folder",
        nargs="?",
        metavar="FOLDER",
        help="a data set: annotations as COCO, YOLO (data.yaml), Pascal VOC or labelme write them, "
        "or images and masks; what was found is printed",
    )
    kind.add_argument(
        "--coco",
        nargs="+",
        metavar="JSON",
        help="COCO annotations for training and for validation; of one file alone a part is split "
        "off for validation",
    )
    kind.add_argument(
        "--masks",
        nargs="+",
        metavar="DIR",
        help="for segmentation: folders of label maps (PNG whose values are indices of classes) "
        "for training and for validation",
    )
    data.add_argument(
        "--images",
        nargs="+",
        default=[],
        metavar="DIR",
        help="folders of the images for training and for validation, or one for both; with --coco "
        "looked for beside the annotations",
    )
    for flag in ("--match-names", "--merge-classes"):  # always done since
        data.add_argument(flag, action="store_true", help=argparse.SUPPRESS)
    data.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME",
        help="of masks: names of the values 0, 1, ..., or a text file with one on each line",
    )
    data.add_argument(
        "--val-share",
        type=float,
        default=0.2,
        metavar="PART",
        help="part of the images that is split off where no validation data is named (%(default)s)",
    )
    data.add_argument(
        "--bands",
        type=int,
        nargs="+",
        metavar="N",
        help="bands of multi-band images to use, counted from 0 (all)",
    )
    data.add_argument(
        "--flip",
        choices=["horizontal", "all"],
        default="horizontal",
        help="`all` for pictures without an up, such as from above or through a microscope",
    )
    model = parser.add_argument_group("model")
    model.add_argument(
        "--method",
        help="mask_rcnn (default), cascade, mask_reppoints_v2, atss, retinanet, reppoints, "
        "reppoints_v2; upernet with --masks",
    )
    model.add_argument(
        "--backbone",
        metavar="SIZE",
        help="tiny (default), small, base, large, or what follows swin_ in a recipe's name",
    )
    model.add_argument(
        "--weights",
        metavar="NAME",
        help="start from published weights of the whole model (`swin-mm weights` lists names), or "
        "from a file or an address; without --method and --backbone, a name chooses the recipe",
    )
    model.add_argument(
        "--preset",
        choices=["auto", "full", "small"],
        default="auto",
        help="full: a recipe with pretrained weights, for a GPU; small: a small model from "
        "scratch, trained on a CPU within minutes; auto: full if there is a GPU",
    )
    model.add_argument(
        "--batch-size",
        dest="batch",
        type=positive,
        metavar="N",
        help="images a step (what fits a GPU of 8 GiB)",
    )
    out = Path("my_config.py")
    parser.add_argument("--out", type=Path, default=out, metavar="FILE.py", help="(%(default)s)")
    parser.add_argument("--force", action="store_true", help="replace files that are there")
    args = parser.parse_args(argv)
    for name, values in (("--coco", args.coco), ("--masks", args.masks), ("--images", args.images)):
        if values and len(values) > 2:
            parser.error(f"{name} takes one or two, got {len(values)}")
    if args.masks and not args.images:
        parser.error("--masks needs --images")
    if args.classes and args.coco:
        parser.error("--classes goes with masks: COCO files name their classes")
    if not 0 < args.val_share < 1:
        parser.error(f"--val-share must be between 0 and 1, got {args.val_share}")
    return args
