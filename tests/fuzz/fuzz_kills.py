"""Kills runs at random instants, resumes them, and compares them with runs left alone.

    python tests/fuzz/fuzz_kills.py [--kills 200] [--seed 0] [--folder DIR]

Prints a line of JSON for each kill and one with the counts at the end; the status is 1 where a run
was lost or differs. Each run is a fork of this process, since importing takes longer.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from kill_task import write_kill_config
from swin_weights import microsoft_state

import swin_mm.engine.curves  # noqa: F401  (imported once, not in each fork)
from swin_mm.cli.main import import_command, run_command
from swin_mm.datasets.shapes import presets

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
WORKER_SECONDS = 5.0  # that workers of a killed process may live on
# What a stop and a resume change in any case, and times.
VARYING = {"time", "cfg", "config", "experiment_name", "data_time", "eta", "last_ckpt", "best_ckpt"}

EPOCHS = "train_cfg = dict(by_epoch=True, max_epochs=3, val_interval={val})\n"
STEPS = """
train_cfg = dict(by_epoch=False, max_iters=12, val_interval={val})
train_dataloader['sampler'] = dict(type='{sampler}', shuffle=True)
param_scheduler = []
"""
BY_STEP = "default_hooks['checkpoint'].update(by_epoch=False, interval={interval})\n"


def choose_config(draw: random.Random) -> str:
    """Lines of a config: one of the ways to train that a kill must not disturb."""
    lines = []
    if draw.random() < 0.5:
        lines.append(EPOCHS.format(val=draw.choice([1, 1, 2])))
        if draw.random() < 0.5:
            lines.append(BY_STEP.format(interval=draw.choice([1, 3, 4, 5])))
        else:
            lines.append(f"default_hooks['checkpoint']['interval'] = {draw.choice([1, 1, 2])}\n")
    else:
        sampler = draw.choice(["InfiniteSampler", "InfiniteSampler", "DefaultSampler"])
        lines.append(STEPS.format(val=draw.choice([2, 4, 5]), sampler=sampler))
        lines.append(BY_STEP.format(interval=draw.choice([1, 3, 4])))
    keep, best = draw.choice([-1, 1, 2]), draw.choice(["'toy/error'", "'auto'", "None"])
    lines.append(f"default_hooks['checkpoint'].update(max_keep_ckpts={keep}, save_best={best})\n")
    if best == "'toy/error'":
        lines.append("default_hooks['checkpoint']['rule'] = 'less'\n")
    workers = draw.choice([0, 2, 2])
    persistent = workers > 0 and draw.random() < 0.5
    lines.append(
        f"train_dataloader.update(num_workers={workers}, persistent_workers={persistent})\n"
    )
    if draw.random() < 0.3:
        lines.append(f"optim_wrapper['accumulative_counts'] = {draw.choice([2, 3])}\n")
    hooks = ["dict(type='RecordLosses')"]
    if draw.random() < 0.3:
        average = "ema_type='swin_mm.ExponentialMovingAverage', momentum=0.1"
        hooks.append(f"dict(type='EMAHook', {average})")
    if draw.random() < 0.3:
        hooks.append("dict(type='swin_mm.EarlyStoppingHook', monitor='toy/accuracy', patience=1)")
    lines.append(f"custom_hooks = [{', '.join(hooks)}]\n")
    return "".join(lines)


def fork(function: Callable[[], int], output: Path) -> int:
    """Starts `function` in a fork of this process; returns its id."""
    child = os.fork()
    if child:
        return child
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    status = 70
    try:
        status = function()
    except SystemExit as error:
        status = error.code
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def wait(child: int) -> str:
    """How a process ended: `0`, another status, or `-n` for signal n."""
    status = os.waitpid(child, 0)[1]
    return str(-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))


def is_right_end(end: str, number: int) -> bool:
    """Whether a process may end so after a signal; it may have been done already."""
    return end in ("0", str(-number), str(128 + number))


def kill_after(child: int, seconds: float, number: int) -> tuple[str, list[int]]:
    """Sends a signal; returns how the process ended and which of its workers live on."""
    time.sleep(seconds)
    try:
        workers = Path(f"/proc/{child}/task/{child}/children").read_text().split()
        os.kill(child, number)
    except (ProcessLookupError, FileNotFoundError):
        workers = []
    end = wait(child)
    limit = time.monotonic() + WORKER_SECONDS
    while any(map(is_alive, workers)) and time.monotonic() < limit:
        time.sleep(0.05)
    return end, [int(worker) for worker in workers if is_alive(worker)]


def is_alive(process: str) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def read_checkpoint(path: Path) -> object:
    """The content of a checkpoint without times and what names the run."""
    return _simplify(torch.load(path, weights_only=False))


def _simplify(value: object) -> object:
    if isinstance(value, dict):
        return {
            str(key): _simplify(item)
            for key, item in value.items()
            if str(key).rpartition("/")[2] not in VARYING
        }
    if isinstance(value, list | tuple):
        return [_simplify(item) for item in value]
    if isinstance(value, torch.Tensor):
        return value.dtype, value.tolist()
    if hasattr(value, "data") and hasattr(value, "max_length"):  # a history of a logged value
        return [part.tolist() for part in value.data]
    return value if isinstance(value, int | float | str | bool | None) else str(value)


def describe_training(folder: Path) -> dict[str, object]:
    """What a training leaves, but for logs of single processes and pictures of times."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    content: dict[str, object] = {"files": [path.name for path in files]}
    for path in files:
        if path.suffix == ".pth":
            content[path.name] = read_checkpoint(path)
    content["last"] = Path((folder / "last_checkpoint").read_text()).name
    losses: dict[str, set] = {}
    for line in (folder / "records" / "losses").read_text().splitlines():
        step, *values = line.split()
        losses.setdefault(step, set()).add(tuple(values))
    content["losses"] = {step: sorted(values) for step, values in sorted(losses.items())}
    return content


def describe_files(folder: Path) -> dict[str, object]:
    """All files under a folder, by their bytes or, of checkpoints, their content."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        if path.suffix != ".pth"
        else str(read_checkpoint(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class Job:
    """Something to be killed: what runs in a folder, and what it leaves there."""

    def __init__(self, name: str, run: Callable[[Path], int], describe: Callable[[Path], dict]):
        self.name, self.run, self.describe = name, run, describe


def make_training(draw: random.Random, folder: Path) -> Job:
    folder.mkdir(parents=True)
    config = write_kill_config(folder, choose_config(draw))

    def run(work_dir: Path) -> int:
        return run_command("train", [str(config), "--work-dir", str(work_dir), "--resume"])

    return Job("train", run, describe_training)


def make_shapes() -> Job:
    presets.PRESETS["fuzz"] = replace(presets.PRESETS["easy"], train=6, val=3)

    def run(folder: Path) -> int:
        return run_command("shapes", ["fuzz", "--root", str(folder)])

    return Job("shapes", run, describe_files)


def make_convert(source: Path) -> Job:
    def run(folder: Path) -> int:
        folder.mkdir(exist_ok=True)
        target = str(folder / "converted.pth")
        return run_command("convert", [str(source), target, "--to", "timm", "--force"])

    return Job("convert", run, describe_files)


def differences(found: object, wanted: object, where: str = "") -> list[str]:
    """Where two descriptions differ, as paths of keys."""
    if not (isinstance(found, dict) and isinstance(wanted, dict)):
        return [] if found == wanted else [where]
    keys = sorted({*found, *wanted})
    parts = (differences(found.get(key), wanted.get(key), f"{where}/{key}") for key in keys)
    return [path for part in parts for path in part]


def try_kills(job: Job, folder: Path, draw: random.Random, kills: int) -> list[dict]:
    """Lets a job run once, then kills it `kills` times, once or several times in one run."""
    output = folder / "output"
    began = time.monotonic()
    if wait(fork(lambda: job.run(folder / "alone"), output)) != "0":
        raise RuntimeError(f"{job.name} fails by itself: {output.read_text()[-3000:]}")
    duration = time.monotonic() - began
    wanted = job.describe(folder / "alone")
    results: list[dict] = []
    while len(results) < kills:
        # The file names in a checkpoint are those of the folder.
        place = folder / f"killed_{len(results)}"
        killed: list[dict] = []
        for _ in range(min(draw.choice([1, 1, 2, 3]), kills - len(results))):
            number, seconds = draw.choice(SIGNALS), draw.uniform(0, duration)
            child = fork(lambda place=place: job.run(place), output)
            end, workers = kill_after(child, seconds, number)
            killed.append(
                dict(job=job.name, signal=number.name, after=round(seconds, 3), end=end)
                | dict(right_end=is_right_end(end, number), workers=len(workers))
            )
        end = wait(fork(lambda place=place: job.run(place), output))
        differs = differences(job.describe(place), wanted) if end == "0" else []
        for kill in killed:
            kill.update(lost=end != "0", differs=differs)
        results += killed
        if end == "0" and not differs:
            shutil.rmtree(place)
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill runs at random instants.")
    parser.add_argument("--kills", type=int, default=200, help="how many (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the choices (%(default)s)")
    parser.add_argument("--per-run", type=int, default=5, help="kills per config (%(default)s)")
    parser.add_argument("--folder", type=Path, help="kept afterwards; by default a temporary one")
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(args.seed)
    for name in ("train", "shapes", "convert"):  # forks need not import then
        import_command(name)
    source = folder / "source.pth"
    torch.save({"model": microsoft_state()}, source)
    counts: Counter = Counter()
    while counts["kills"] < args.kills:
        part = folder / f"run_{counts['runs']}"
        counts["runs"] += 1
        kind = draw.choice(["train"] * 6 + ["shapes", "convert"])
        part.mkdir(parents=True)
        jobs = {
            "train": lambda part=part: make_training(draw, part / "config"),
            "shapes": make_shapes,
            "convert": lambda: make_convert(source),
        }
        results = try_kills(
            jobs[kind](), part, draw, min(args.per_run, args.kills - counts["kills"])
        )
        for result in results:
            print(json.dumps({"run": part.name, **result}), flush=True)
            counts["kills"] += 1
            counts[result["job"]] += 1
            counts[result["signal"]] += 1
            counts["lost"] += result["lost"]
            counts["different"] += bool(result["differs"])
            counts["wrong status"] += not result["right_end"]
            counts["workers left"] += result["workers"]
    print(json.dumps(counts))
    if args.folder is None:
        shutil.rmtree(folder)
    bad = ("lost", "different", "wrong status", "workers left")
    return int(any(counts[name] for name in bad))


if __name__ == "__main__":
    sys.exit(main())
