"""`swin-mm benchmark --part data`: how fast a config's data loader feeds its training."""

import argparse
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from mmengine.utils.dl_utils import set_multi_processing
from rich.console import Console
from rich.progress import Progress

from swin_mm.benchmark.feeding import (
    Feed,
    advise,
    feeding_config,
    measure_feeds,
    measure_step,
    time_steps,
    use_photos,
)
from swin_mm.benchmark.feeding_report import (
    RATE_NOTE,
    draw_bars,
    draw_steps,
    draw_table,
    write_json,
)
from swin_mm.benchmark.machine import describe_machine
from swin_mm.benchmark.report import OURS
from swin_mm.cli.config import load_config
from swin_mm.cli.errors import raise_first
from swin_mm.cli.launch import find_scope
from swin_mm.configs import ConfigError
from swin_mm.datasets.shapes.photos import HEIGHT, WIDTH, write_photos

FILE_WIDTH = 100  # columns, where the output is no terminal
OUT = Path("work_dirs/benchmark")
PHOTOS = Path("data/shapes/photos")
GROUPS = 8  # of batches in a turn
STEPS = 3  # of training, for its time
TIMED_IMAGES = 64  # for the steps of the pipeline


def check_feeding_args(args: argparse.Namespace) -> None:
    """Raises ConfigError where other options contradict `--part data`, or want it."""
    if args.part != "data":
        if args.workers or args.made_images or args.step_ms or args.with_step:
            raise ConfigError(
                "--workers, --made-images, --step-ms and --with-step are for --part data: add it"
            )
        return
    contradictions = [
        (not args.config, "--part data is of the data loader of a config: give --config"),
        (
            args.version or args.arch or args.window or args.attn_backend or args.cast_weights,
            "--part data has no model: leave --version, --arch, --window, --attn-backend and "
            "--cast-weights out",
        ),
        (
            args.size or args.batch or args.changing_sizes,
            "sizes and batches are those of the config: leave --size, --batch and "
            "--changing-sizes out, and use --cfg-options train_dataloader.batch_size=N",
        ),
        (
            args.sweep or args.values or args.run != ["eager"] or args.profile,
            "--part data is of the loader alone: leave --sweep, --values, --run and --profile out",
        ),
        (
            args.mode == "inference" or args.dtype != "fp32",
            "--part data is of training, in the precision of the config: leave --mode and --dtype "
            "out",
        ),
        (
            args.step_ms and args.with_step,
            "--step-ms says what a step takes and --with-step measures it: give one of them",
        ),
    ]
    raise_first(contradictions)


def run_feeding(args: argparse.Namespace, command: str) -> int:
    """Measures, prints, and writes JSON and a picture.

    Args:
        args: Parsed options of `swin-mm benchmark`.
        command: Command line that repeats it.

    Returns:
        The exit status.

    Raises:
        ConfigError: Options contradict each other, or the data of the config are missing.
    """
    check_feeding_args(args)
    cfg = load_config(args.config, args.cfg_options)
    find_scope(cfg)
    libraries = [OURS, *choose_peers(args, cfg)]
    console = Console(highlight=False, width=None if sys.stdout.isatty() else FILE_WIDTH)
    data = "its own data"
    if args.made_images:
        make_photos(cfg, args.made_images)
        data = f"{args.made_images} JPEGs of {HEIGHT}x{WIDTH} made for it"
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    machine = describe_machine(device)
    date = datetime.now().astimezone().isoformat(timespec="seconds")
    name = Path(args.config).stem
    out = Path(args.out) if args.out else OUT / f"{name}_data"

    # As training sets it up: OpenCV in each worker takes one core, not all.
    set_multi_processing(**cfg.get("env_cfg", {}).get("mp_cfg", {}))
    feeds = draw_batches(cfg, libraries, args)
    steps = {x: time_steps(feeding_config(cfg, x, 0), TIMED_IMAGES) for x in libraries}
    step = args.step_ms / 1e3 if args.step_ms else None
    if args.with_step:
        step = measure_step(cfg, device, STEPS)
    advice = [] if step is None else [advise(feed, step) for feed in feeds]

    title = f"{name}, train loader, {feeds[0].batch} images a batch, {data}"
    heading = (
        f"{machine['device']}, {machine['cores']} cores, PyTorch {machine['versions']['torch']}"
    )
    console.print(heading, soft_wrap=True)
    console.print(title, style="bold", soft_wrap=True)
    console.print(draw_table(feeds, step))
    if any(steps.values()):
        console.print(draw_steps(steps))
    for line in (RATE_NOTE, *advice):
        console.print(line, soft_wrap=True, markup=False)
    about = {"command": command, "date": date, "data": data, **machine}
    write_json(out / "data.json", feeds, steps, step, advice, about)
    draw_bars(feeds, step, f"{title}\n{heading}", out / "data.png")
    console.print(f"written: {out / 'data.json'}, {out / 'data.png'}", soft_wrap=True)
    return 0


def draw_batches(cfg: Config, libraries: Sequence[str], args: argparse.Namespace) -> list[Feed]:
    """Measures each library's loader with each number of workers, with a progress bar."""
    configs = [
        (library, feeding_config(cfg, library, workers))
        for workers in args.workers or [None]
        for library in libraries
    ]
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("drawing batches", total=args.rounds * len(configs))
        return measure_feeds(configs, args.rounds, GROUPS, on_step=lambda _: progress.advance(task))


def choose_peers(args: argparse.Namespace, cfg: Config) -> list[str]:
    """The framework of the config, if its own steps are to be measured too.

    Raises:
        ConfigError: Another peer is asked for.
    """
    names = [name for name in args.peers if name != "none"]
    wrong = [name for name in names if name not in ("all", cfg.default_scope)]
    if wrong:
        raise ConfigError(
            f"the peer of this config's pipeline is {cfg.default_scope}, got {', '.join(wrong)}"
        )
    return [cfg.default_scope] if names else []


def make_photos(cfg: Config, count: int) -> None:
    """Makes images, unless they are there, and puts them in place of the config's data."""
    init_default_scope(cfg.default_scope)
    folder = PHOTOS / f"{count}_{cfg.default_scope}"
    use_photos(cfg, f"{folder}/")
    settings = cfg.train_dataloader.dataset
    with DATASETS.switch_scope_and_registry(None) as registry:
        metainfo = {**registry.get(settings.type).METAINFO, **settings.get("metainfo", {})}
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("making images", total=count)
        classes = metainfo.get("classes") or ["shape"]
        write_photos(folder, count, classes, lambda: progress.advance(task))
