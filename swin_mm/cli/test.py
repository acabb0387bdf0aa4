"""Measures a checkpoint on the test data of a config, and draws or keeps its predictions."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmengine.config import Config, ConfigDict

from swin_mm.cli.launch import (
    add_launch_options,
    build_runner,
    check_checkpoint,
    check_loops,
    find_scope,
    joined_processes,
    prepare_config,
)
from swin_mm.cli.next_steps import print_next
from swin_mm.cli.parser import CommandParser
from swin_mm.cli.train_options import add_compile_option, apply_compile_option
from swin_mm.cli.views import add_view_options, apply_view_options
from swin_mm.configs import ConfigError, bare_type

if TYPE_CHECKING:
    from mmengine.runner import Runner

METRICS_FILE = "metrics.json"
PICKLES = (".pkl", ".pickle")


def main(argv: Sequence[str] | None = None) -> None:
    """Tests one checkpoint."""
    args = parse_args(argv)
    cfg = prepare_config(args)
    apply_test_options(cfg, args)
    check_loops(cfg)
    cfg.load_from = check_checkpoint(args.checkpoint)

    from swin_mm.datasets.check import check_config
    from swin_mm.engine import ExactWeightsHook

    with joined_processes(cfg):
        data = check_config(cfg, splits=("test",))
        runner = build_runner(cfg, data)
        runner.register_hook(ExactWeightsHook())
        if args.out:
            keep_predictions(runner, args.out)
        metrics = runner.test()
        if runner.rank == 0:
            report(metrics, args, runner)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser(
        description="Measure a checkpoint on the test data of a config; the metrics are printed "
        f"and written to {METRICS_FILE} in the work folder."
    )
    parser.add_argument("config", help="path, or name of a config that comes with swin_mm")
    parser.add_argument(
        "checkpoint", help="weights of the whole model, or a name of `swin-mm weights`"
    )
    parser.add_argument(
        "--out",
        metavar="FILE.pkl",
        help="keep the predictions here; for segmentation also a folder, for label maps as PNG",
    )
    parser.add_argument("--show", action="store_true", help="show predictions in a window")
    parser.add_argument(
        "--show-dir",
        metavar="DIR",
        help="draw predictions beside the ground truth into DIR, within the folder of the run in "
        "the work folder unless absolute",
    )
    parser.add_argument(
        "--wait-time", type=float, default=2.0, metavar="S", help="seconds per window (%(default)s)"
    )
    add_compile_option(parser)
    add_view_options(parser)
    add_launch_options(parser)
    return parser.parse_args(argv)


def apply_test_options(cfg: Config, args: argparse.Namespace) -> None:
    """Applies the options that only testing has, as far as they are a matter of the config."""
    if cfg.get("test_dataloader") is None:
        raise ConfigError(f"{args.config} has no test_dataloader, so there is nothing to test on")
    cfg.resume = False
    apply_compile_option(cfg, args)
    is_seg = find_scope(cfg) == "mmseg"
    if args.out and not is_seg and not args.out.endswith(PICKLES):
        raise ConfigError(f"--out must end in .pkl, got {args.out}")
    if args.show or args.show_dir:
        drawing = cfg.default_hooks.setdefault("visualization", {})
        if is_seg:
            drawing = cfg.default_hooks.visualization = ConfigDict(
                type="swin_mm.SegVisualizationHook", out_dir=args.show_dir
            )
        else:
            if bare_type(drawing) in ("", "DetVisualizationHook"):
                # mmdet's own draws on other pixels than the model saw, where the pipeline decodes
                # in another way than mmcv.imread.
                drawing["type"] = "swin_mm.DetVisualizationHook"
                drawing.pop("backend_args", None)
            drawing.update(draw=True, test_out_dir=args.show_dir)
        drawing.update(show=args.show, wait_time=args.wait_time if args.show else 0.0)
    apply_view_options(cfg, args)


def keep_predictions(runner: "Runner", out: str) -> None:
    """Has the predictions of a test written to a file, or those of a segmentor to a folder."""
    metrics = runner.test_evaluator.metrics
    if not out.endswith(PICKLES):
        # mmseg's metric writes them, numbered as in the original data.
        writers = [metric for metric in metrics if hasattr(metric, "output_dir")]
        if not writers:
            raise ConfigError(f"--out {out}: only IoUMetric writes label maps; give a FILE.pkl")
        Path(out).mkdir(parents=True, exist_ok=True)
        writers[0].output_dir = out
    elif find_scope(runner.cfg) == "mmseg":
        from swin_mm.engine.dump import DumpLabelMaps

        metrics.append(DumpLabelMaps(out))
    else:
        from swin_mm.engine.dump import DumpInstances

        metrics.append(DumpInstances(out))


def report(metrics: Mapping[str, Any], args: argparse.Namespace, runner: "Runner") -> None:
    """Prints metrics and writes them to the work folder, and says where pictures are."""
    from swin_mm.console import PlainConsole, make_table
    from swin_mm.engine.checkpoint_files import write_atomically

    texts = {n: f"{v:.4f}" if isinstance(v, float) else str(v) for n, v in metrics.items()}
    PlainConsole().print(make_table(texts.items(), ("metric", "value"), numbers=True))

    content = {"config": args.config, "checkpoint": args.checkpoint, "metrics": dict(metrics)}
    path = Path(runner.work_dir, METRICS_FILE)
    write_atomically(path, (json.dumps(content, indent=2, default=float) + "\n").encode())
    print(f"checkpoint: {args.checkpoint}\nmetrics: {path}")
    if args.show_dir:
        print(f"pictures: {Path(runner.work_dir, runner.timestamp, args.show_dir)}")
    if args.out:
        print(f"predictions: {args.out}")
    print_next(
        ["predict", args.config, args.checkpoint, "IMAGES"],
        ["analyze-results", args.config, args.checkpoint],
        ["export", args.config, args.checkpoint],
    )
