"""Predicts image files: pictures, and what was found as files."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swin_mm.cli.config import add_config_options, add_trust_option, load_config, share
from swin_mm.cli.launch import check_checkpoint
from swin_mm.cli.parser import CommandParser
from swin_mm.cli.views import add_view_options, read_view_options
from swin_mm.configs import ConfigError, find_scope
from swin_mm.export.runtime import SUFFIXES
from swin_mm.text import printable

if TYPE_CHECKING:
    from mmengine.config import Config

    from swin_mm.inference.prediction_files import PredictionFiles
    from swin_mm.inference.predictor import Predictor

EXAMPLES = """\
examples:
  swin-mm predict mask_rcnn_swin_t epoch_12.pth photo.jpg
  swin-mm predict my_config.py best.pth photos/ --out found --score-thr 0.5
  swin-mm predict my_config.py best.pth aerial.tif --sliced --slice-height 640 --slice-width 640
  swin-mm predict my_model.onnx photos/
  swin-mm predict my_config.py best.pth street.mp4 "photos/*.jpg" https://example.com/a.jpg"""


def main(argv: Sequence[str] | None = None) -> int:
    """Predicts images; returns 1 if some could not be read."""
    args = parse_args(argv)
    is_exported = args.config.endswith(tuple(SUFFIXES.values()))
    arguments = [args.checkpoint, *args.images] if is_exported else args.images
    views = read_view_options(args)
    if args.score_thr is not None:
        views["score_thr"] = args.score_thr
    cfg = None if is_exported else read_config(args)

    from swin_mm.inference.exported import Exported
    from swin_mm.inference.model import Model
    from swin_mm.inference.prediction_files import PredictionFiles, find_images

    out = Path(args.out).expanduser()
    images = find_images(arguments, out)
    if cfg is None:
        model: Predictor = Exported(args.config, args.trust)
    else:
        model = Model(cfg, args.checkpoint, args.device)
    things = model.meta.get("thing_classes")
    files = PredictionFiles(out, model.classes, model.palette, args.draw, things)
    try:
        unreadable = predict_images(model, images, files, **views)
    finally:  # also of a run that an error or a signal ends
        if files.images:
            report(files)
    if unreadable:
        names = "; ".join(unreadable[:3]) + ("; ..." if len(unreadable) > 3 else "")
        print(
            f"{len(unreadable)} of {len(images)} images could not be read: {printable(names)}",
            file=sys.stderr,
        )
    return int(bool(unreadable))


def read_config(args: argparse.Namespace) -> "Config":
    """Reads the config of a model and checks that the options suit it."""
    cfg = load_config(args.config, args.cfg_options)
    if not args.images:
        raise ConfigError("no images: give CONFIG CHECKPOINT IMAGES, or EXPORTED_FILE IMAGES")
    if find_scope(cfg) == "mmseg" and args.score_thr is not None:
        raise ConfigError("--score-thr is for detectors; a segmentor labels every pixel")
    args.checkpoint = check_checkpoint(args.checkpoint)
    return cfg


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser(
        description="Predict image files with a trained detector or segmentor: pictures, and all "
        "that was found as predictions.json (objects or segments in COCO's format) or as label "
        "maps.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "config", help="path, or name of a config that comes with swin_mm; or an exported file"
    )
    parser.add_argument(
        "checkpoint",
        help="trained weights of the whole model, or a name of `swin-mm weights`; not given after "
        "a file of `swin-mm export`",
    )
    parser.add_argument(
        "images",
        nargs="*",
        metavar="image|folder|video",
        help="files, folders (searched with those below), patterns such as 'photos/*.jpg', "
        "addresses, videos, and numbers of cameras",
    )
    parser.add_argument("--out", default="predictions", metavar="DIR", help="(%(default)s)")
    parser.add_argument(
        "--score-thr",
        type=share,
        metavar="S",
        help="for detectors: leave out what scores less (0.3)",
    )
    parser.add_argument("--device", help="such as cpu or cuda:1 (a GPU if there is one)")
    parser.add_argument(
        "--no-pictures", dest="draw", action="store_false", help="write the numbers alone"
    )
    add_trust_option(parser)
    add_view_options(parser)
    add_config_options(parser)
    return parser.parse_args(argv)


def predict_images(
    model: "Predictor",
    images: dict[str, Path | str | int],
    files: "PredictionFiles",
    **options: Any,
) -> list[str]:
    """Predicts images and videos and writes what is found; returns what cannot be read, and why."""
    from swin_mm.datasets.progress import show_progress
    from swin_mm.datasets.reader import UnreadableError
    from swin_mm.inference.prediction import Prediction
    from swin_mm.inference.sources import PredictError

    unreadable = []
    with show_progress("predicting", len(images)) as advance:
        for name, source in images.items():
            try:
                found = model.predict(source, **options, progress=_in_parts(advance))
                if isinstance(found, Prediction):
                    files.add(name, found)
                else:
                    files.add_video(name, source, iter(found))
            except (UnreadableError, PredictError) as error:
                unreadable.append(str(error))
                advance(1)
    return unreadable


def _in_parts(advance: Callable[[float], None]) -> Callable[[int, int], None]:
    """Makes of a bar that counts images one that moves with the slices of an image too."""
    reached = 0.0

    def show(done: int, total: int) -> None:
        nonlocal reached
        advance(done / total - reached)
        reached = done / total

    return show


def report(files: "PredictionFiles") -> None:
    """Writes the summary and says where everything is."""
    from swin_mm.inference.prediction_files import LABELS, PICTURES, SEGMENTS

    summary = files.close()
    print(f"images: {len(files.images)}")
    if files.maps == SEGMENTS:
        print(f"segments: {files.folder / SEGMENTS}")
    elif files.maps == LABELS:
        print(f"label maps: {files.folder / LABELS}")
    else:
        print(f"objects: {len(files.annotations)}")
    if files.draw:
        print(f"pictures: {files.folder / PICTURES}")
    print(f"predictions: {summary}")
