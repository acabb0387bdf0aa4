"""Trains a detector or a segmentor, whichever the config describes."""

import argparse
from collections.abc import Sequence

from swin_mm.cli.launch import (
    add_launch_options,
    build_runner,
    check_checkpoint,
    check_loops,
    check_pretrained,
    joined_processes,
    prepare_config,
)
from swin_mm.cli.next_steps import report_training
from swin_mm.cli.parser import CommandParser
from swin_mm.cli.train_options import add_train_options, apply_train_options, scale_learning_rate
from swin_mm.configs import ConfigError


def main(argv: Sequence[str] | None = None) -> None:
    """Trains one config."""
    args = parse_args(argv)
    cfg = prepare_config(args)
    if cfg.get("train_cfg") is None:
        raise ConfigError(f"{args.config} has no train_cfg, so there is nothing to train")
    check_loops(cfg)
    start = cfg.get("load_from")
    apply_train_options(cfg, args)
    start, cfg.load_from = (
        name and check_checkpoint(name) for name in (start, cfg.get("load_from"))
    )
    check_pretrained(cfg)

    from mmengine.dist import get_world_size

    from swin_mm.datasets.check import check_config
    from swin_mm.engine import ExactWeightsHook

    with joined_processes(cfg):
        scaling = None
        if args.auto_scale_lr or (cfg.get("auto_scale_lr") or {}).get("enable"):
            scaling = scale_learning_rate(cfg, get_world_size())
        data = check_config(cfg)
        runner = build_runner(cfg, data)
        vars(runner)["start_from"] = start
        if scaling:
            runner.logger.info(scaling)
        if cfg.get("resume"):
            runner.register_hook(ExactWeightsHook())
        runner.train()
        if runner.rank == 0:
            report_training(runner, args.config)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser(description="Train a detector or a segmentor.")
    parser.add_argument("config", help="path, or name of a config that comes with swin_mm")
    add_train_options(parser)
    add_launch_options(parser)
    return parser.parse_args(argv)
