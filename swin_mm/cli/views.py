"""Has a test predict each image in several views, or a large one in slices, as the flags say."""

import argparse
from typing import Any

from mmengine.config import Config

from swin_mm.configs import ConfigError


def add_view_options(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that say how a command is to see images."""
    parser.add_argument(
        "--tta",
        action="store_true",
        help="merge predictions of flipped and scaled views of each image: tta_model and "
        "tta_pipeline in the config, or mirror images in two scales for detectors, in six for "
        "segmentors",
    )
    parser.add_argument(
        "--sliced",
        action="store_true",
        help="for detectors and large images: predict overlapping slices and join what is found; "
        "more settings as sliced_model in the config (docs/inference.md)",
    )
    for side in ("height", "width"):
        parser.add_argument(
            f"--slice-{side}",
            type=int,
            metavar="PIXELS",
            help=f"{side} of a slice (512 unless the config says otherwise)",
        )


def read_view_options(args: argparse.Namespace) -> dict[str, Any]:
    """Reads those flags; `sliced` is true, or has arguments of `SlicedInference`."""
    if args.tta and args.sliced:
        raise ConfigError("--tta and --sliced do not go together: choose one")
    sizes = {"slice_height": args.slice_height, "slice_width": args.slice_width}
    sizes = {name: size for name, size in sizes.items() if size is not None}
    if sizes and not args.sliced:
        raise ConfigError("--slice-height and --slice-width are for --sliced")
    return {"tta": args.tta, "sliced": sizes or args.sliced}


def apply_view_options(cfg: Config, args: argparse.Namespace) -> None:
    """Wraps the model and the data of the test as those flags say."""
    from swin_mm.inference.views import use_sliced_inference, use_test_time_augmentation

    views = read_view_options(args)
    if views["tta"]:
        use_test_time_augmentation(cfg)
    if views["sliced"]:
        use_sliced_inference(cfg, **(views["sliced"] if isinstance(views["sliced"], dict) else {}))
