"""Finds the largest batch of training that fits into memory."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from swin_mm.cli.benchmark import FILE_WIDTH, positive, read_size
from swin_mm.cli.config import add_config_options, load_config
from swin_mm.cli.launch import find_scope
from swin_mm.cli.train_options import scale_learning_rate
from swin_mm.configs import ConfigError

GIB = 2**30


def main(argv: Sequence[str] | None = None) -> int:
    """Tries batches, and prints what they take and what to write into the config.

    Args:
        argv: Command line without the program's name; by default the process's own.

    Returns:
        The exit status: 1 where no batch fits.

    Raises:
        ConfigError: The config cannot be read or does not say how large images are, or an option
            does not suit this machine.
        TrialError: A training step fails for another reason than memory.
    """
    args = parse_args(argv)
    cfg = load_config(args.config, args.cfg_options)
    find_scope(cfg)

    import torch
    from rich.console import Console

    from swin_mm.benchmark.batch_size import HEADROOM, find_largest, write_lines
    from swin_mm.benchmark.batch_trial import Request, Trial, try_batch
    from swin_mm.benchmark.machine import device_name

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    memory = find_memory(args, device)
    size = args.size or find_size(cfg)
    console = Console(
        highlight=False, markup=False, width=None if sys.stdout.isatty() else FILE_WIDTH
    )
    console.print(
        f"{Path(args.config).stem}, training steps on random images of {size[0]}x{size[1]}, "
        f"{device_name(torch.device(device))}, {memory / GIB:g} GiB, of which {HEADROOM:.0%} "
        "are left free",
        soft_wrap=True,
    )

    def attempt(batch: int) -> Trial:
        limit = int(memory * (1 - HEADROOM))
        trial = try_batch(Request(cfg, size, batch, device, limit))
        console.print(describe_trial(trial))
        return trial

    trials = find_largest(attempt, args.max_batch)
    fitting = [trial for trial in trials if trial.fits]
    if not fitting:
        console.print(
            "Not even one image fits: train in mixed precision (--cfg-options "
            "optim_wrapper.type=swin_mm.AmpOptimWrapper), recompute the backbone "
            "(model.backbone.with_cp=True) or take smaller images",
            soft_wrap=True,
        )
        return 1
    best = fitting[-1]
    at_most = " (larger ones were not tried)" if best.batch == args.max_batch else ""
    console.print(f"\nThe largest batch that fits: {best.batch}{at_most}. In the config:\n")
    console.print(write_lines(cfg, best.batch, args.gpus, scale_learning_rate), soft_wrap=True)
    return 0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Find the largest batch of training that fits into memory, at the largest "
        "image size of a config. Neither weights nor data are needed."
    )
    parser.add_argument("config", help="path, or name of a config that comes with swin_mm")
    parser.add_argument(
        "--memory",
        type=read_memory,
        metavar="GIB",
        help="memory that there is; by default that of the GPU. A CPU needs it",
    )
    parser.add_argument(
        "--size", type=read_size, metavar="HxW", help="of the images; by default the config's"
    )
    parser.add_argument(
        "--gpus", type=positive, default=1, help="that train together, for the learning rate"
    )
    parser.add_argument(
        "--max-batch", type=positive, default=256, help="no larger one is tried; default: 256"
    )
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), help="default: cuda where there is one"
    )
    add_config_options(parser)
    return parser.parse_args(argv)


def read_memory(text: str) -> float:
    """Reads GiB."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of GiB above 0, got {text!r}")
    return value


def find_memory(args: argparse.Namespace, device: str) -> int:
    """Bytes that there are.

    Raises:
        ConfigError: Nobody says, or the device is not there or has less.
    """
    import torch

    if device == "cpu":
        if args.memory is None:
            raise ConfigError("a CPU has no memory of its own: give --memory GIB")
        return int(args.memory * GIB)
    if not torch.cuda.is_available():
        raise ConfigError("--device cuda: PyTorch finds no CUDA device (`swin-mm doctor` says why)")
    free, total = torch.cuda.mem_get_info()
    if args.memory is None:
        return free
    if args.memory * GIB > total:
        raise ConfigError(f"--memory {args.memory:g}: this GPU has {total / GIB:.1f} GiB")
    return int(args.memory * GIB)


def find_size(cfg) -> tuple[int, int]:
    """The largest size of the config's images.

    Raises:
        ConfigError: The config does not say.
    """
    from swin_mm.benchmark.image_size import find_largest_size

    size = find_largest_size(cfg)
    if size is None:
        raise ConfigError(
            "the training pipeline leaves images in the size they have: give the largest by "
            "--size HxW"
        )
    return size


def describe_trial(trial) -> str:
    """One line."""
    if not trial.fits:
        return f"  batch {trial.batch:>3}: does not fit"
    return (
        f"  batch {trial.batch:>3}: {trial.peak / GIB:6.2f} GiB, "
        f"{trial.images_per_second:.2f} images/s"
    )
