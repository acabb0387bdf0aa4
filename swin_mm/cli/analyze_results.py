"""Says where a model goes wrong: by class and size, what for what, in which images."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from swin_mm.cli import test
from swin_mm.cli.config import share
from swin_mm.cli.launch import prepare_config
from swin_mm.cli.parser import CommandParser
from swin_mm.configs import ConfigError, find_scope

if TYPE_CHECKING:
    from swin_mm.analysis.page import Analysis

KEPT = "predictions.pkl"


def main(argv: Sequence[str] | None = None) -> None:
    """Analyses predictions or a checkpoint."""
    args, others = parse_args(argv)
    cfg = prepare_config(test.parse_args([args.config, args.predictions, *others]))
    if cfg.get("test_dataloader") is None:
        raise ConfigError(f"{args.config} has no test_dataloader, so there is nothing to compare")

    from mmengine.registry import DATASETS, DefaultScope

    from swin_mm.analysis.page import write_folder, write_page
    from swin_mm.analysis.predictions import load_predictions
    from swin_mm.analysis.report import analyse_detection, analyse_segmentation

    path = Path(args.predictions).expanduser()
    if path.suffix not in test.PICKLES:
        path = Path(cfg.work_dir, KEPT)
        test.main([args.config, args.predictions, "--out", str(path), *others])
    entries = load_predictions(path)
    with DefaultScope.overwrite_default_scope(find_scope(cfg)):
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
    if find_scope(cfg) == "mmseg":
        analysis = analyse_segmentation(dataset, entries, args.worst)
    elif hasattr(dataset, "cat_ids"):
        analysis = analyse_detection(dataset, entries, args.min_score, args.iou, args.worst)
    else:
        raise ConfigError(
            f"test_dataloader.dataset is a {type(dataset).__name__}; of detectors, only data in "
            "COCO's format can be analysed"
        )
    source = "checkpoint" if path != Path(args.predictions).expanduser() else "predictions"
    names = {"config": args.config, source: args.predictions}
    names["data"] = getattr(dataset, "ann_file", "") or dataset.data_prefix.get("img_path", "")
    analysis = replace(analysis, facts={**names, **analysis.facts})
    out = Path(args.out or Path(cfg.work_dir, "analysis.html")).expanduser()
    write = write_page if out.suffix == ".html" else write_folder
    write(analysis, out)
    show(analysis, out)


def parse_args(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    parser = CommandParser(
        description="Say where a model goes wrong on the test data of a config: precision by class "
        "and size of objects, what is taken for what, and the worst images; for segmentation IoU "
        "by class, confusions and the worst images.",
        epilog="Other options are those of `test`: --work-dir DIR, --cfg-options KEY=VALUE, and "
        "for a checkpoint --tta and the like.",
        allow_abbrev=False,
    )
    parser.add_argument("config", help="path, or name of a config that comes with swin_mm")
    parser.add_argument(
        "predictions",
        metavar="predictions|checkpoint",
        help="FILE.pkl of `test --out`, or a checkpoint, which is tested first; its predictions "
        f"are kept as {KEPT} in the work folder",
    )
    parser.add_argument(
        "--out",
        metavar="FILE.html|DIR",
        help="one HTML file with everything in it, or a folder for pictures (PNG) and numbers "
        "(analysis.json); by default analysis.html in the work folder",
    )
    parser.add_argument(
        "--min-score",
        type=share,
        default=0.3,
        metavar="S",
        help="detections below this score are neither confused nor drawn (%(default)s)",
    )
    parser.add_argument(
        "--iou",
        type=share,
        default=0.5,
        metavar="U",
        help="boxes that overlap less are not the same object (%(default)s)",
    )
    parser.add_argument(
        "--worst", type=int, default=12, metavar="N", help="images to draw (%(default)s)"
    )
    return parser.parse_known_args(argv)


def show(analysis: "Analysis", out: Path) -> None:
    """Prints the numbers of the whole and where the rest is."""
    from swin_mm.analysis.page import format_value
    from swin_mm.console import PlainConsole, make_table

    rows = [(name, format_value(value)) for name, value in analysis.facts.items()]
    PlainConsole().print(make_table(rows, numbers=True))
    print(f"analysis: {out}")
