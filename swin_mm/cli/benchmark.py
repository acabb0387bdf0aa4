"""`swin-mm benchmark`: time and memory of a backbone, a neck or a whole model, beside peers."""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from itertools import repeat
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import MMLogger
from rich.console import Console
from rich.progress import Progress

from swin_mm.benchmark.machine import describe_machine
from swin_mm.benchmark.plot import plot_parts, plot_result
from swin_mm.benchmark.profile import profile_steps
from swin_mm.benchmark.report import (
    OURS,
    draw_notes,
    draw_table,
    milliseconds,
    timed_rows,
    write_json,
)
from swin_mm.benchmark.step import RUN_MODES, Candidate, run_case
from swin_mm.benchmark.whole import FRAMEWORKS, ModelStep, loaded_batches
from swin_mm.benchmark.workload import DTYPES, SWEEPS, Workload, vary
from swin_mm.cli.config import add_config_options, image_size, load_config, positive
from swin_mm.cli.errors import raise_first
from swin_mm.cli.parser import CommandParser
from swin_mm.configs import ConfigError
from swin_mm.console import PlainConsole
from swin_mm.models.backbones.arguments import ARCHS
from swin_mm.ops.dispatch import IMPLEMENTATIONS

PEERS = ("mmdet", "timm", "torchvision", "transformers")
WINDOWS = {1: 7, 2: 8}  # of the published models
DEFAULT_SIZE = (800, 1344)
FILE_WIDTH = 120  # columns, where the output is no terminal
OUT = Path("work_dirs/benchmark")

# Options that would be ignored beside another one, and what to do instead.
MEANINGLESS = {
    "--part backbone": ("config", "a config is measured as a whole"),
    "--part neck": ("config window attn_backend", "a neck has no attention"),
    "--config": (
        "version arch window attn_backend",
        "the config defines the backbone; use --cfg-options model.backbone.KEY=VALUE",
    ),
    "--profile": (
        "part run sweep",
        "it is of one model's step",
    ),
    "--sweep side": ("size", "give --values"),
    "--sweep batch": ("batch", "give --values"),
    "--sweep window": ("window config", "it is of a backbone; give --values"),
    "--sweep depth": ("config", "it is of a backbone; give --values"),
}

EXAMPLES = """\
examples:
  swin-mm benchmark --size 800x1344 --batch 2 --mode train --dtype bf16 --peers all
  swin-mm benchmark --run eager compile graphs --dtype bf16 --peers timm
  swin-mm benchmark --version 2 --arch base --window 16 --size 1024x1024 --peers all
  swin-mm benchmark --sweep side --values 256 512 1024 --peers mmdet timm
  swin-mm benchmark --part neck --peers all
  swin-mm benchmark --config mask_rcnn_swin_t --mode train --dtype fp16 --batch 2 --peers all
  swin-mm benchmark --config mask_rcnn_swin_t --mode train --sweep batch     # what fits in memory
  swin-mm benchmark --config mask_rcnn_swin_t --profile
  swin-mm benchmark --config mask_rcnn_swin_t --profile --mode inference --size 800x1344
  swin-mm benchmark --plot benchmarks/cpu_swin_t_512_train.json

Times of different runs are not comparable, ratios within one are."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints tables, writes JSON and a plot; returns 1 if swin_mm has no result."""
    argv = list(sys.argv[1:] if argv is None else argv)
    args = parse_args(argv)
    if args.plot:
        return replot(args.plot)
    check_args(args)
    if args.threads:
        torch.set_num_threads(args.threads)
    MMLogger.get_current_instance().setLevel("ERROR")  # models log how they are initialised
    workloads = plan_workloads(args)
    work = workloads[0][1]
    candidates = plan_candidates(args, work)
    machine = describe_machine(work.device)
    content = {
        "command": shlex.join(["swin-mm", "benchmark", *argv]),
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        **machine,
    }
    console = PlainConsole(width=None if sys.stdout.isatty() else FILE_WIDTH)
    threads = f"{machine['threads']} of {machine['cores']} threads, " * (work.device.type == "cpu")
    version = f"swin_mm {machine['swin_mm']} {machine['commit'] or ''}"
    heading = f"{machine['device']}, {threads}PyTorch {torch.__version__}, {version}"
    console.print(heading, soft_wrap=True)
    out = Path(args.out) if args.out else OUT / name_run(args)
    if args.profile:
        return run_profile(args, work, content, out, console)

    content |= {"sweep": args.sweep, "cases": []}
    total = len(workloads) * len(candidates) * (args.rounds + 2)
    errors = Console(stderr=True)
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as progress:
        task = progress.add_task("measuring", total=total)
        for value, work in workloads:
            case = run_case(work, candidates, args.rounds, lambda: progress.advance(task))
            content["cases"].append(case | {"value": value})
            console.print(draw_table(content["cases"][-1]))
            # After each, so that a long run that is interrupted is not lost.
            write_json(out / "result.json", content)
    console.print(draw_notes(content), soft_wrap=True)
    plot_result(content, out / "result.png")
    console.print(f"written: {out}/result.json and result.png", soft_wrap=True)
    names = [{row["library"] for row in timed_rows(case)} for case in content["cases"]]
    return 0 if all(OURS in found for found in names) else 1


def run_profile(
    args: argparse.Namespace, work: Workload, content: dict[str, Any], out: Path, console: Console
) -> int:
    """Profiles steps of a config; prints, and writes JSON, plots and traces, also of peers."""
    title = f"{Path(args.config).stem}, {work.mode} on "
    title += "random images of {}x{}".format(*work.sizes[0]) if args.size else "its own data"
    title += f", {work.objects} objects" * bool(work.objects)
    for candidate in plan_candidates(args, work):
        library = candidate.library
        folder = out if library == OURS else out / library
        result, operators = profile_library(library, work, args, folder / "trace.json.gz")
        parts = result["parts_ms"]
        console.print(f"{library}: {title}")
        speed = f"{result['images_per_second']:.3g} images/s"
        console.print(f"{milliseconds(result['step_ms'])} ms, {speed}")
        for name, value in parts.items():
            share = value / sum(parts.values())
            console.print(f"  {name:20} {milliseconds(value):>8} ms {share:5.0%}")
        for key in ("gpu_busy", "kernel_launches", "gpu_waits"):
            console.print(f"{key}: {result.get(key, 'not measured on a CPU')}")
        console.print(operators, soft_wrap=True)
        write_json(folder / "profile.json", {**content, "library": library, **result})
        (folder / "operators.txt").write_text(operators + "\n")
        plot_parts(parts, f"{library}: {title}\n{content['device']}", folder / "profile.png")
        console.print(
            f"written: {folder}/profile.json, profile.png, operators.txt and trace.json.gz "
            "(open it at https://ui.perfetto.dev)",
            soft_wrap=True,
        )
    return 0


def profile_library(
    library: str, work: Workload, args: argparse.Namespace, trace: Path
) -> tuple[dict[str, Any], str]:
    """Profiles one library's step, as `profile_steps` does."""
    step = ModelStep(library, work)
    batches = repeat(step.data[0]) if args.size else loaded_batches(work.given_config())
    model, optim_wrapper = step.model, step.optim_wrapper
    return profile_steps(model, optim_wrapper, batches, args.rounds, trace, work.autocast)


def replot(files: Sequence[str]) -> int:
    """Draws the plots of results again, beside them."""
    for file in map(Path, files):
        try:
            is_drawn = plot_result(json.loads(file.read_text()), file.with_suffix(".png"))
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ConfigError(f"{file} is no result of `swin-mm benchmark`: {error!r}") from error
        print(f"written: {file.with_suffix('.png')}" if is_drawn else f"{file}: nothing to plot")
    return 0


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = CommandParser(
        description=__doc__.partition(": ")[2],
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_argument_group("what is measured")
    what.add_argument(
        "--part",
        choices=("backbone", "neck"),
        help="default: backbone",
    )
    what.add_argument("--config", help="measure the whole model of a config, with its losses")
    what.add_argument("--version", type=int, choices=(1, 2), help="of Swin; default: 1")
    what.add_argument("--arch", choices=tuple(ARCHS), help="default: tiny")
    what.add_argument("--window", type=positive, help="side in tokens; default: 7, of V2 8")
    what.add_argument(
        "--size",
        nargs="+",
        type=image_size,
        metavar="HxW",
        help="image sizes in pixels, measured one after another; default: 800x1344",
    )
    what.add_argument("--batch", type=positive, help="images; default: 1")
    what.add_argument("--mode", choices=("train", "inference"), help="default: inference")
    what.add_argument(
        "--objects",
        type=positive,
        help="that a detector finds in each image, in inference; default: none, as random weights "
        "find no object",
    )
    what.add_argument("--dtype", choices=tuple(DTYPES), help="by autocast; default: fp32")
    what.add_argument(
        "--attn-backend",
        choices=("auto", *IMPLEMENTATIONS),
        help="of swin_mm's backbone; default: auto",
    )
    what.add_argument("--sweep", choices=tuple(SWEEPS), help="show how cost grows with it")
    what.add_argument("--values", nargs="+", type=positive, help="of the sweep")
    what.add_argument(
        "--profile",
        action="store_true",
        help="split the step of --config into its parts and operators: of training (default) on "
        "its own data, or with --size and --batch on random images",
    )
    who = parser.add_argument_group("who is measured")
    who.add_argument(
        "--peers", nargs="+", default=[], metavar="NAME", help=f"all, or {', '.join(PEERS)}, mmseg"
    )
    who.add_argument("--run", nargs="+", choices=tuple(RUN_MODES), help="default: eager")
    how = parser.add_argument_group("how")
    how.add_argument("--device", choices=("cuda", "cpu"), help="default: cuda if there is one")
    how.add_argument("--threads", type=positive, help="of the CPU; default: PyTorch's")
    how.add_argument("--rounds", type=positive, default=10, help="of --profile: steps; default: 10")
    how.add_argument("--out", metavar="DIR", help=f"for JSON and PNG; default: {OUT}/NAME")
    how.add_argument("--plot", nargs="+", metavar="JSON", help="only plot these results again")
    add_config_options(parser)
    return parser.parse_args(argv)


def check_args(args: argparse.Namespace) -> None:
    """Raises ConfigError if an option would be ignored, or does not suit this machine."""

    def is_chosen(option: str) -> bool:
        name, _, value = option.removeprefix("--").partition(" ")
        given = getattr(args, name)
        return given == value if value else bool(given)

    contradictions: list[tuple[object, str]] = [
        (
            not args.config and (args.profile or args.cfg_options),
            "--profile and --cfg-options need --config",
        ),
        (
            args.device == "cuda" and not torch.cuda.is_available(),
            "--device cuda: PyTorch finds no CUDA device (see `swin-mm doctor`)",
        ),
        (
            args.threads and args.threads > (os.cpu_count() or args.threads),
            f"--threads {args.threads}: this machine has {os.cpu_count()} cores",
        ),
        (args.values and not args.sweep, "--values needs --sweep"),
        (
            args.part == "neck" and args.sweep in ("window", "depth"),
            f"--sweep {args.sweep} does not change a neck",
        ),
        (
            (args.sweep or args.profile) and args.size and args.size[1:],
            "--sweep and --profile take one --size",
        ),
        (
            args.profile and args.batch and not args.size,
            "--batch of --profile is for random images: give --size too, or use --cfg-options "
            "train_dataloader.batch_size=N",
        ),
        (
            args.profile and (args.mode == "inference" or args.peers) and not args.size,
            "--mode inference and --peers of --profile are for random images: give --size too",
        ),
        (
            args.objects and not (args.config and args.mode != "train"),
            "--objects is for the inference of a detector: give --config, and no --mode train",
        ),
    ]
    for option, (names, cure) in MEANINGLESS.items():
        given = [name for name in names.split() if getattr(args, name, None)]
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        contradictions.append((is_chosen(option) and given, f"{flags} not with {option}: {cure}"))
    raise_first(contradictions)


def plan_workloads(args: argparse.Namespace) -> list[tuple[int | None, Workload]]:
    """What is measured, one after another, with the value of the sweep."""
    version = args.version or 1
    cfg = load_config(args.config, args.cfg_options) if args.config else None
    if cfg is not None and cfg.get("default_scope") not in FRAMEWORKS:
        raise ConfigError(f"--config must be of {' or '.join(FRAMEWORKS)}: {args.config} is not")
    sizes = tuple(args.size or [DEFAULT_SIZE])
    batch = args.batch or 1
    work = Workload(
        part=args.part or ("config" if cfg else "backbone"),
        version=version,
        arch=ARCHS[args.arch or "tiny"],
        window=args.window or WINDOWS[version],
        sizes=sizes[:1],
        batch=batch,
        mode=args.mode or ("train" if args.profile else "inference"),
        dtype=args.dtype or "fp32",
        device=torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu")),
        attn_backend=args.attn_backend or "auto",
        config=cfg,
        objects=args.objects,
    )
    if args.sweep:
        values = sorted(set(args.values or SWEEPS[args.sweep]))
        return [(value, vary(work, args.sweep, value)) for value in values]
    return [(None, replace(work, sizes=(size,))) for size in sizes]


def plan_candidates(args: argparse.Namespace, work: Workload) -> list[Candidate]:
    """Who is measured: swin_mm first."""
    known = (*PEERS, "mmseg")
    unknown = [name for name in args.peers if name not in ("all", "none", *known)]
    if unknown:
        raise ConfigError(
            f"--peers must be all, none, or some of {', '.join(known)}, got {', '.join(unknown)}"
        )
    # The only peer of a config is its framework.
    every = PEERS if work.config is None else (work.config.default_scope,)
    names = [OURS]
    for name in args.peers:
        names += {"all": every, "none": ()}.get(name, (name,))
    runs = dict.fromkeys(args.run or ["eager"])
    return [Candidate(name, run) for name in dict.fromkeys(names) for run in runs]


def name_run(args: argparse.Namespace) -> str:
    """A folder's name that says what is in it."""
    what = Path(args.config).stem if args.config else f"v{args.version or 1}_{args.arch or 'tiny'}"
    sizes = [f"{height}x{width}" for height, width in args.size or []]
    batch = args.batch and f"b{args.batch}"
    objects = args.objects and f"{args.objects}_objects"
    options = [args.part, args.mode, args.dtype, args.attn_backend, batch, objects, *sizes]
    flags = ["profile"] * args.profile
    sweep = args.sweep and f"sweep_{args.sweep}"
    return "_".join(str(o) for o in (what, *options, *flags, sweep) if o)
