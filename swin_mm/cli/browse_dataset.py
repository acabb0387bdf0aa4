"""Draws what training sees: images and labels after augmentation."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.runner import set_random_seed

from swin_mm.cli.config import add_config_options, load_config, positive
from swin_mm.cli.parser import CommandParser
from swin_mm.configs import ConfigError

SPLITS = ("train", "val", "test")
SHEET = "sheet.png"


def main(argv: Sequence[str] | None = None) -> None:
    """Draws samples of one data loader."""
    args = parse_args(argv)
    cfg = load_config(args.config, args.cfg_options)
    if not cfg.get(f"{args.split}_dataloader"):
        raise ConfigError(f"{args.config} has no {args.split}_dataloader")
    folder = Path(args.output_dir or f"work_dirs/{Path(args.config).stem}/browse_{args.split}")
    set_random_seed(args.seed)
    count = browse(cfg, args.split, folder, args.number, args.repeat)
    print(f"{count} pictures in {folder}, all on one sheet in {folder / SHEET}")


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser(
        description="Draw what a config's data loader yields, after augmentation, with boxes, "
        "masks or label maps: as files and on one sheet."
    )
    parser.add_argument("config", help="path, or name of a config that comes with swin_mm")
    parser.add_argument(
        "--output-dir",
        metavar="FOLDER",
        help="put the pictures here (default: work_dirs/CONFIG/browse_SPLIT)",
    )
    parser.add_argument("--split", choices=SPLITS, default="train", help="default: %(default)s")
    parser.add_argument(
        "--number",
        type=positive,
        default=24,
        metavar="N",
        help="how many images, spread evenly over the data (default: %(default)s)",
    )
    parser.add_argument(
        "--repeat",
        type=positive,
        default=1,
        metavar="N",
        help="draw each image so many times: augmentation differs each time",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the augmentation")
    ignored = "accepted for compatibility; ignored: no window is opened"
    parser.add_argument("--not-show", action="store_true", help=ignored)
    parser.add_argument("--show-interval", help=ignored)
    add_config_options(parser)
    return parser.parse_args(argv)


def browse(cfg: Config, split: str, folder: Path, number: int, repeat: int) -> int:
    """Draws `repeat` pictures of each of `number` samples, as files and on a sheet; counts them."""
    from swin_mm.datasets.picture import choose_palette, draw_large, sample_sheet
    from swin_mm.datasets.progress import show_progress
    from swin_mm.datasets.reader import Reader
    from swin_mm.datasets.samples import build_dataset, read_sample, shrink, spread_evenly

    dataset = build_dataset(cfg, split)
    classes, palette = dataset.metainfo["classes"], choose_palette(dataset.metainfo)
    is_bgr = Reader.of(dataset).is_bgr
    indices = np.repeat(spread_evenly(len(dataset), number), repeat)
    small = []
    with show_progress("drawing", len(indices)) as advance:
        for count, index in enumerate(indices.tolist()):
            item = dataset[index]
            image, annotation = read_sample(item, is_bgr)
            name = Path(_name(item)).stem
            draw_large(image, annotation, folder / f"{count:04d}_{name}.png", classes, palette)
            small.append(shrink(image, annotation))
            advance(1)
    sample_sheet(small, folder / SHEET, classes, palette)
    return len(indices)


def _name(item: dict) -> str:
    """Returns the image's path, where the pipeline keeps it."""
    source = item["data_samples"].metainfo if "data_samples" in item else item
    return source.get("img_path", "image")
