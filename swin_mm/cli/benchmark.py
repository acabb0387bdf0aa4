"""`swin-mm benchmark`: time and memory of a backbone, a neck or a whole model, beside others'."""

import argparse
import os
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import torch
from mmengine.logging import MMLogger
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from swin_mm.benchmark.floor import DeviceSpeed, measure_device
from swin_mm.benchmark.machine import describe_machine
from swin_mm.benchmark.plot import draw
from swin_mm.benchmark.report import OURS, Case, draw_notes, draw_table, write_json
from swin_mm.benchmark.run import run_case
from swin_mm.benchmark.step import HOWS, Candidate
from swin_mm.benchmark.whole import FRAMEWORKS
from swin_mm.benchmark.work import DTYPES, SWEEPS, Size, Work, changing_sizes, vary
from swin_mm.cli.config import add_config_options, load_config
from swin_mm.cli.errors import raise_first
from swin_mm.cli.feeding import check_feeding_args, run_feeding
from swin_mm.cli.step_profile import run_profile
from swin_mm.configs import ConfigError
from swin_mm.models.backbones.arguments import ARCHS
from swin_mm.ops.dispatch import BACKENDS

PEERS = ("mmdet", "timm", "torchvision", "transformers")
WINDOWS = {1: 7, 2: 8}  # of the published models
DEFAULT_SIZE = (800, 1344)
DEFAULT_MODE = "inference"
FILE_WIDTH = 100  # columns, where the output is no terminal
OUT = Path("work_dirs/benchmark")

EXAMPLES = """\
examples:
  swin-mm benchmark --size 800x1344 --batch 2 --mode train --dtype bf16 --peers all
  swin-mm benchmark --run eager compile graphs --mode inference --dtype bf16 --peers timm
  swin-mm benchmark --mode train --size 800x1344 --changing-sizes --peers mmdet
  swin-mm benchmark --version 2 --arch base --window 16 --size 1024x1024 --peers all
  swin-mm benchmark --sweep side --values 256 512 1024 --peers mmdet timm
  swin-mm benchmark --part neck --peers all
  swin-mm benchmark --config mask_rcnn_swin_t --mode train --dtype fp16 --batch 2 --peers all
  swin-mm benchmark --config mask_rcnn_swin_t --profile
  swin-mm benchmark --config mask_rcnn_swin_t --part data --made-images 512 --workers 1 2

Times of different runs are not comparable, ratios within one are."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints tables, and writes JSON and a picture.

    Args:
        argv: Command line without the program's name; by default the process's own.

    Returns:
        The exit status: 1 when swin_mm itself has no result, else 0.

    Raises:
        ConfigError: Options contradict each other or this machine.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    args = parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    MMLogger.get_current_instance().setLevel("ERROR")  # models tell how they are initialised
    command = shlex.join(["swin-mm", "benchmark", *argv])
    check_feeding_args(args)
    if args.part == "data":
        check_machine(args)
        return run_feeding(args, command)
    if args.profile:
        check_machine(args)
        return run_profile(args, command)
    pieces = plan_work(args)
    candidates = plan_candidates(args, pieces[0][1])
    out = Path(args.out) if args.out else OUT / name_run(args)
    machine = describe_machine(pieces[0][1].device)
    date = datetime.now().astimezone().isoformat(timespec="seconds")

    work = pieces[0][1]
    speed = measure_device(work.device, DTYPES[work.dtype])
    is_terminal = sys.stdout.isatty()
    console = Console(highlight=False, width=None if is_terminal else FILE_WIDTH)
    heading = describe_run(machine, work)
    console.print(heading, soft_wrap=True)
    cases: list[Case] = []
    for case in measure_all(pieces, candidates, args.rounds, speed):
        cases.append(case)
        console.print(draw_table(case))
        # After each, so that a long sweep that is interrupted is not lost.
        write_json(out / "result.json", cases, speed, machine, command, date, args.sweep)
    console.print(draw_notes(cases, speed), soft_wrap=True)
    written = [out / "result.json"]
    caption = f"{heading}\n{work.describe()}, then larger: {args.sweep}" if args.sweep else heading
    if draw(cases, args.sweep, caption, out / "result.png"):
        written.append(out / "result.png")
    console.print(f"written: {', '.join(map(str, written))}", soft_wrap=True)
    return 0 if all(case.ours for case in cases) else 1


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition(": ")[2],
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_argument_group("what is measured")
    what.add_argument(
        "--part",
        choices=("backbone", "neck", "data"),
        help="default: backbone; data: how fast the train loader of --config feeds",
    )
    what.add_argument("--config", help="measure the whole model of a config, with its losses")
    what.add_argument("--version", type=int, choices=(1, 2), help="of Swin; default: 1")
    what.add_argument("--arch", choices=tuple(ARCHS), help="default: tiny")
    what.add_argument("--window", type=positive, help="side in tokens; default: 7, of V2 8")
    what.add_argument(
        "--size",
        nargs="+",
        type=read_size,
        metavar="HxW",
        help="of the images, in pixels; several are measured one after another; default: 800x1344",
    )
    what.add_argument(
        "--changing-sizes",
        action="store_true",
        help="let each step take another size: of those given, or up to the one given as "
        "multi-scale training does",
    )
    what.add_argument("--batch", type=positive, help="images; default: 1")
    what.add_argument("--mode", choices=("train", "inference"), help=f"default: {DEFAULT_MODE}")
    what.add_argument("--dtype", choices=tuple(DTYPES), default="fp32", help="by autocast")
    what.add_argument(
        "--cast-weights",
        action="store_true",
        help="for inference: convert weights and images once instead of by autocast",
    )
    what.add_argument(
        "--attn-backend",
        choices=("auto", *BACKENDS),
        help="of swin_mm's backbone; triton takes its blocks to Triton too; default: auto",
    )
    what.add_argument("--sweep", choices=tuple(SWEEPS), help="show how cost grows with it")
    what.add_argument("--values", nargs="+", type=positive, help="of the sweep")

    what.add_argument(
        "--profile",
        action="store_true",
        help="say where the time of the config's training step goes, on its own data, or with "
        "--size and --batch on random images",
    )

    feed = parser.add_argument_group("of --part data")
    feed.add_argument(
        "--workers", nargs="+", type=count_workers, metavar="N", help="default: the config's"
    )
    feed.add_argument(
        "--made-images",
        type=positive,
        metavar="N",
        help="make JPEGs of COCO's size, and measure with them in place of the config's data",
    )
    feed.add_argument("--step-ms", type=positive, metavar="MS", help="what a training step takes")
    feed.add_argument(
        "--with-step",
        action="store_true",
        help="measure a training step, on the same data",
    )

    who = parser.add_argument_group("who is measured")
    who.add_argument(
        "--peers", nargs="+", default=[], metavar="NAME", help=f"all, or {', '.join(PEERS)}, mmseg"
    )
    who.add_argument("--run", nargs="+", choices=HOWS, default=["eager"], help="default: eager")

    how = parser.add_argument_group("how")
    how.add_argument("--device", choices=("cuda", "cpu"), help="default: cuda where there is one")
    how.add_argument("--threads", type=positive, help="of the CPU; default: PyTorch's")
    how.add_argument("--rounds", type=positive, default=10, help="of --profile: steps; default: 10")
    how.add_argument("--out", metavar="DIR", help=f"for JSON and PNG; default: {OUT}/NAME")
    add_config_options(parser)
    return parser.parse_args(argv)


def positive(text: str) -> int:
    """Reads a whole number above 0."""
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, got {text!r}")
    return int(text)


def count_workers(text: str) -> int:
    """Reads a number of processes; 0 stands for the one that trains."""
    return 0 if text == "0" else positive(text)


def read_size(text: str) -> Size:
    """Reads `HxW`."""
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text, re.ASCII)
    if match is None:
        raise argparse.ArgumentTypeError(f"must be HEIGHTxWIDTH in pixels, got {text!r}")
    return int(match[1]), int(match[2])


def plan_work(args: argparse.Namespace) -> list[tuple[int | None, Work]]:
    """What is measured, one after another, with the value of the sweep.

    Raises:
        ConfigError: Options contradict each other or this machine.
    """
    check_args(args)
    version = args.version or 1
    arch = ARCHS[args.arch or "tiny"]
    sizes = tuple(args.size or [DEFAULT_SIZE])
    work = Work(
        part="config" if args.config else args.part or "backbone",
        version=version,
        embed_dims=arch.embed_dims,
        depths=arch.depths,
        num_heads=arch.num_heads,
        window=args.window or WINDOWS[version],
        sizes=sizes[:1],
        batch=args.batch or 1,
        mode=args.mode or DEFAULT_MODE,
        dtype=args.dtype,
        device=torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu")),
        casts_weights=args.cast_weights and args.dtype != "fp32",
        attn_backend=args.attn_backend or "auto",
        config=load_config(args.config, args.cfg_options) if args.config else None,
    )
    if work.config is not None and work.config.get("default_scope") not in FRAMEWORKS:
        raise ConfigError(f"--config must be of {' or '.join(FRAMEWORKS)}: {args.config} is not")
    if args.changing_sizes:
        return [(None, replace(work, sizes=sizes if sizes[1:] else changing_sizes(sizes[0])))]
    if args.sweep:
        values = sorted(set(args.values or SWEEPS[args.sweep]))
        return [(value, vary(work, args.sweep, value)) for value in values]
    return [(None, replace(work, sizes=(size,))) for size in sizes]


def check_args(args: argparse.Namespace) -> None:
    """Raises ConfigError where options contradict each other or this machine."""
    contradictions = [
        (
            args.config and args.part,
            "--config measures the whole model: leave --part out, or choose --part data",
        ),
        (args.cfg_options and not args.config, "--cfg-options changes a config: give --config"),
        (
            args.config and (args.version or args.arch or args.window),
            "the config says what the backbone is: leave --version, --arch and --window out, and "
            "change it with --cfg-options model.backbone.KEY=VALUE",
        ),
        (
            args.config and args.sweep in ("window", "depth"),
            f"--sweep {args.sweep} is for a backbone: leave --config out",
        ),
        (
            args.config and args.cast_weights,
            "--cast-weights is for a backbone or a neck, whose layers all run in any dtype",
        ),
        (
            args.attn_backend and (args.config or args.part == "neck"),
            "--attn-backend is for a backbone; a config takes "
            "--cfg-options model.backbone.attn_backend=NAME",
        ),
        (args.values and not args.sweep, "--values are those of a sweep: give --sweep"),
        (args.sweep == "side" and args.size, "--sweep side sets the size: give --values instead"),
        (args.sweep == "batch" and args.batch, "--sweep batch sets the batch: use --values"),
        (args.sweep == "window" and args.window, "--sweep window sets the window: use --values"),
        (
            args.sweep and args.size and len(args.size) > 1,
            "a sweep is of one size: give --size once",
        ),
        (
            args.sweep and args.changing_sizes,
            "--sweep and --changing-sizes cannot be shown in one picture: give one of them",
        ),
        (
            args.cast_weights and args.mode == "train",
            "--cast-weights is for inference: training keeps its weights in float32",
        ),
        (
            args.part == "neck" and args.sweep in ("window", "depth"),
            f"--sweep {args.sweep} does not change a neck",
        ),
    ]
    raise_first(contradictions)
    check_machine(args)


def check_machine(args: argparse.Namespace) -> None:
    """Raises ConfigError where this machine lacks what options ask for."""
    contradictions = [
        (
            args.device == "cuda" and not torch.cuda.is_available(),
            "--device cuda: PyTorch finds no CUDA device (`swin-mm doctor` says why)",
        ),
        (
            args.threads and args.threads > (os.cpu_count() or args.threads),
            f"--threads {args.threads}: this machine has {os.cpu_count()} cores",
        ),
    ]
    raise_first(contradictions)


def plan_candidates(args: argparse.Namespace, work: Work) -> list[Candidate]:
    """Who is measured: swin_mm first.

    Raises:
        ConfigError: A peer has a name that none has.
    """
    known = (*PEERS, "mmseg")
    unknown = [name for name in args.peers if name not in ("all", "none", *known)]
    if unknown:
        raise ConfigError(
            f"--peers must be all, none, or some of {', '.join(known)}, got {', '.join(unknown)}"
        )
    if "none" in args.peers and len(args.peers) > 1:
        raise ConfigError(f"--peers none goes alone, got {' '.join(args.peers)}")
    names = [name for name in args.peers if name not in ("all", "none")]
    if "all" in args.peers:
        # The stock model of a config is its framework's.
        every = PEERS if work.config is None else (work.config.default_scope,)
        names = [*every, *names]
    libraries = dict.fromkeys([OURS, *names])
    return [Candidate(library, how) for library in libraries for how in dict.fromkeys(args.run)]


def name_run(args: argparse.Namespace) -> str:
    """A folder's name that says what is in it."""
    if args.config:
        what = Path(args.config).stem
    else:
        what = f"{args.part or 'backbone'}_v{args.version or 1}_{args.arch or 'tiny'}"
    parts = [what, args.mode or DEFAULT_MODE, args.dtype]
    parts += [args.attn_backend] if args.attn_backend else []
    parts += [f"b{args.batch}"] if args.batch else []
    parts += [f"{height}x{width}" for height, width in args.size or []]
    parts += ["changing"] if args.changing_sizes else []
    parts += [f"sweep_{args.sweep}"] if args.sweep else []
    return "_".join(parts)


def measure_all(pieces, candidates: Sequence[Candidate], rounds: int, speed: DeviceSpeed):
    """Yields the case of each piece of work, with a progress bar where there is a terminal."""
    console = Console(stderr=True)
    for i, (value, work) in enumerate(pieces, 1):
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        ) as bar:
            task = bar.add_task(f"{i}/{len(pieces)}", note="")

            def show(note: str, done: int, total: int, bar=bar, task=task) -> None:
                bar.update(task, note=note, completed=done, total=total)

            case = run_case(work.describe(), work, candidates, rounds, speed, show)
        case.value = value
        yield case


def describe_run(machine: dict, work: Work) -> str:
    """What all cases have in common, in one line."""
    versions = machine["versions"]
    parts = [machine["device"]]
    if work.device.type == "cpu":
        parts.append(f"{machine['threads']} of {machine['cores']} threads")
    parts += [f"PyTorch {versions['torch']}", f"swin_mm {machine['swin_mm']}"]
    if machine["commit"]:
        parts.append(machine["commit"])
    return ", ".join(parts)
