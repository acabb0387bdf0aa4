"""Trains a detector or a segmentor, whichever the config describes."""

import argparse
from collections.abc import Sequence

from mmengine.config import Config

from swin_mm.cli.errors import ConfigError
from swin_mm.cli.launch import (
    add_launch_options,
    build_runner,
    check_checkpoint,
    check_pretrained,
    prepare_config,
    start_processes,
    stop_processes,
    type_name,
)

AUTO = "auto"


def main(argv: Sequence[str] | None = None) -> None:
    """Trains as a command line says.

    Args:
        argv: Command line without the program's name; by default the process's own.

    Raises:
        ConfigError: The config or an option does not make sense.
        DatasetError: The data cannot be used.
        CheckpointError: A checkpoint cannot be used.
    """
    args = parse_args(argv)
    cfg = prepare_config(args)
    apply_train_options(cfg, args)
    if cfg.get("load_from"):
        check_checkpoint(cfg.load_from)
    check_pretrained(cfg)

    from swin_mm.datasets.check import check_config
    from swin_mm.engine import ExactWeightsHook

    start_processes(cfg)
    data = check_config(cfg)
    runner = build_runner(cfg, data)
    if cfg.get("resume"):
        runner.register_hook(ExactWeightsHook())
    runner.train()
    stop_processes()


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a detector or a segmentor.")
    parser.add_argument("config", help="path, or name of a config that comes with swin_mm")
    parser.add_argument(
        "--amp", action="store_true", help="train in mixed precision (without a GPU in float32)"
    )
    parser.add_argument(
        "--auto-scale-lr",
        action="store_true",
        help="scale the learning rate by the images per step over those the config was made for",
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const=AUTO,
        metavar="CKPT",
        help="continue from this checkpoint, or without CKPT from the newest in the work folder; "
        "if there is none, start at the beginning",
    )
    add_launch_options(parser)
    return parser.parse_args(argv)


def apply_train_options(cfg: Config, args: argparse.Namespace) -> None:
    """Applies the options that only training has.

    Raises:
        ConfigError: The config does not allow one of them.
    """
    if args.amp:
        kind = type_name(cfg.get("optim_wrapper"))
        if kind in (None, "OptimWrapper"):
            cfg.optim_wrapper.type = "swin_mm.AmpOptimWrapper"
        elif kind != "swin_mm.AmpOptimWrapper":
            raise ConfigError(f"--amp is for optim_wrapper.type=OptimWrapper; it is {kind}")
    if args.auto_scale_lr:
        if "base_batch_size" not in cfg.get("auto_scale_lr", {}):
            raise ConfigError(
                "--auto-scale-lr needs auto_scale_lr.base_batch_size, the images per step that "
                "the learning rate is for; the config has none"
            )
        cfg.auto_scale_lr.enable = True
    if args.resume:
        cfg.resume = True
        cfg.load_from = None if args.resume == AUTO else args.resume
