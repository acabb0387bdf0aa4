"""`swin-mm benchmark --profile`: where the time of a config's training step goes."""

import argparse
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import torch
from mmengine.config import Config
from rich.console import Console

from swin_mm.benchmark.machine import describe_machine
from swin_mm.benchmark.profile import profile_training
from swin_mm.benchmark.profile_advice import advise
from swin_mm.benchmark.profile_report import draw_bar, draw_facts, draw_table, write_json
from swin_mm.benchmark.training import Batch, loaded_batches, random_batches
from swin_mm.cli.config import load_config
from swin_mm.cli.errors import raise_first
from swin_mm.cli.launch import find_scope

FILE_WIDTH = 100  # columns, where the output is no terminal
OUT = Path("work_dirs/benchmark")


def check_profile_args(args: argparse.Namespace) -> None:
    """Raises ConfigError where other options contradict `--profile`."""
    contradictions = [
        (not args.config, "--profile is of the training step of a config: give --config"),
        (
            args.part or args.version or args.arch or args.window,
            "the config says what the model is: leave --part, --version, --arch and --window out",
        ),
        (
            args.mode == "inference",
            "--profile is of a training step: leave --mode inference out",
        ),
        (
            args.peers or args.run != ["eager"] or args.sweep or args.values or args.changing_sizes,
            "--profile looks at one model: leave --peers, --run, --sweep, --values and "
            "--changing-sizes out",
        ),
        (
            args.dtype != "fp32" or args.cast_weights,
            "--profile trains in the precision of the config: change it with --cfg-options "
            "optim_wrapper.type=swin_mm.AmpOptimWrapper optim_wrapper.dtype=bfloat16",
        ),
        (args.size and len(args.size) > 1, "--profile is of one size: give --size once"),
        (
            args.batch and not args.size,
            "--batch is for random images, with --size; for the config's own data use "
            "--cfg-options train_dataloader.batch_size=N",
        ),
    ]
    raise_first(contradictions)


def run_profile(args: argparse.Namespace, command: str) -> int:
    """Measures, prints, and writes JSON, a picture and a timeline.

    Args:
        args: Parsed options of `swin-mm benchmark`.
        command: Command line that repeats it.

    Returns:
        The exit status.

    Raises:
        ConfigError: Options contradict each other, or the data of the config are missing.
    """
    check_profile_args(args)
    cfg = load_config(args.config, args.cfg_options)
    find_scope(cfg)
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    machine = describe_machine(device)
    date = datetime.now().astimezone().isoformat(timespec="seconds")
    name = Path(args.config).stem
    out = Path(args.out) if args.out else OUT / f"{name}_profile"
    batches, data = choose_batches(cfg, args)

    console = Console(highlight=False, width=None if sys.stdout.isatty() else FILE_WIDTH)
    title = f"{name}, training step, {data}"
    timeline = out / "timeline.json.gz"
    profile = profile_training(cfg, batches, device, args.rounds, timeline)
    advice = advise(profile.measures())
    console.print(f"{machine['device']}, PyTorch {machine['versions']['torch']}", soft_wrap=True)
    console.print(title, style="bold", soft_wrap=True)
    console.print(draw_table(profile))
    for line in (*draw_facts(profile), *advice):
        console.print(line, soft_wrap=True, markup=False)
    write_json(out / "profile.json", profile, advice, machine, command, date)
    draw_bar(profile, f"{title}\n{machine['device']}", out / "profile.png")
    console.print(
        f"written: {out / 'profile.json'}, {out / 'profile.png'}, {timeline} "
        "(open it at https://ui.perfetto.dev)",
        soft_wrap=True,
    )
    return 0


def choose_batches(cfg: Config, args: argparse.Namespace) -> tuple[Iterator[Batch], str]:
    """What is trained on, and its description: the config's own data, or random images."""
    if args.size:
        (size,) = args.size
        batch = args.batch or 1
        text = f"{batch} random images of {size[0]}x{size[1]} (loading is not measured)"
        return random_batches(cfg, batch, size), text
    return loaded_batches(cfg), f"{cfg.train_dataloader.get('batch_size')} images of its own data"
