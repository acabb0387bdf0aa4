"""Kills runs at random instants, resumes them, and compares them with runs left alone.

    python tests/fuzz/fuzz_kills.py [--kills 200] [--seed 0] [--kinds train ranks ...]

Prints a line of JSON for each kill and one with the counts at the end; the status is 1 where a run
was lost, differs or ended in a wrong way. Each run is a fork of this process, since importing takes
longer.
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
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import kill_jobs
from kill_jobs import Job, differences, is_alive, list_children, signal_process

KINDS = ["train"] * 4 + ["ranks"] * 3 + ["shard", "detector", "shapes", "convert"]
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
WORKER_SECONDS = 5.0  # that workers of a killed process may live on
LAUNCHER_SECONDS = 60.0  # after which a launcher ends the other ranks of a lost one
BAD = ("lost", "different", "wrong status", "workers left")


def wait(processes: list[int], limit: float | None = None) -> list[str]:
    """How processes ended: `0`, another status, or `-n` for signal n.

    Those that run on `limit` seconds after the first has ended are killed and end as `launcher`.
    """
    ends: dict[int, str] = {}
    first = None
    while len(ends) < len(processes):
        for process in set(processes) - set(ends):
            done, status = os.waitpid(process, os.WNOHANG)
            if done:
                is_signal = os.WIFSIGNALED(status)
                ends[process] = str(-os.WTERMSIG(status) if is_signal else os.WEXITSTATUS(status))
                first = first or time.monotonic()
        if limit and first and time.monotonic() - first > limit:
            for process in set(processes) - set(ends):
                signal_process(process, signal.SIGKILL)
                os.waitpid(process, 0)
                ends[process] = "launcher"
        time.sleep(0.02)
    return [ends[process] for process in processes]


def is_right_end(end: str, number: int, is_target: bool) -> bool:
    """Whether a process may end so after a signal, to itself or to another rank."""
    right = {"0", str(128 + number)}  # it may have been done already
    if is_target:
        right.add(str(-number))  # before training has begun, or after its end
    else:
        right.add("1")  # the other rank was lost
    return end in right


def kill_after(job: Job, folder: Path, output: Path, seconds: float, draw: random.Random) -> dict:
    """Starts a job, sends a signal after `seconds` and says how everything ended."""
    printed = output.stat().st_size
    processes = job.start(folder, output)
    time.sleep(seconds)
    number, target = draw.choice(SIGNALS), draw.choice([*processes, None])
    workers = [worker for process in processes for worker in list_children(process)]
    targets = processes if target is None else [target]
    for process in targets:
        signal_process(process, number)
    is_group = number != signal.SIGKILL and draw.random() < 0.5  # as from torchrun or a terminal
    for worker in workers if is_group else ():
        signal_process(int(worker), number)
    ends = wait(processes, LAUNCHER_SECONDS)
    limit = time.monotonic() + WORKER_SECONDS
    while any(map(is_alive, workers)) and time.monotonic() < limit:
        time.sleep(0.05)
    text = output.read_bytes()[printed:].decode(errors="replace")
    # Before ranks have found each other, which the table at the start shows, none misses another.
    is_early = "work folder" not in text
    right = [
        (end == "launcher" and is_early) or is_right_end(end, number, process in targets)
        for process, end in zip(processes, ends, strict=True)
    ]
    return dict(
        job=job.name,
        signal=number.name + " of the group" * is_group,
        after=round(seconds, 3),
        ends=ends,
        right_end=all(right),
        workers=sum(map(is_alive, workers)),
        printed="" if all(right) else text[-4000:],
    )


def try_kills(job: Job, folder: Path, draw: random.Random, kills: int) -> list[dict]:
    """Lets a job run once, then kills it `kills` times, once or several times in one run."""
    output = folder / "output"
    began = time.monotonic()
    if set(wait(job.start(folder / "alone", output))) != {"0"}:
        raise RuntimeError(f"{job.name} fails by itself: {output.read_text()[-3000:]}")
    duration = time.monotonic() - began
    wanted = job.describe(folder / "alone")
    results: list[dict] = []
    while len(results) < kills:
        # The file names in a checkpoint are those of the folder.
        place = folder / f"killed_{len(results)}"
        killed: list[dict] = []
        for _ in range(min(draw.choice([1, 1, 2, 3]), kills - len(results))):
            seconds = draw.uniform(0, duration)
            killed.append(kill_after(job, place, output, seconds, draw))
        ends = set(wait(job.start(place, output)))
        differs = differences(job.describe(place), wanted) if ends == {"0"} else []
        for kill in killed:
            kill.update(lost=ends != {"0"}, differs=differs)
        results += killed
        if ends == {"0"} and not differs:
            shutil.rmtree(place)
    return results


def make_job(kind: str, draw: random.Random, folder: Path) -> Job:
    """Makes a job of a kind; what it needs is put into `folder`."""
    folder.mkdir(parents=True)
    if kind == "shapes":
        return kill_jobs.make_shapes()
    if kind in ("detector", "convert"):
        return getattr(kill_jobs, f"make_{kind}")(folder)
    ranks, options = 1 if kind == "train" else 2, ["--shard"] if kind == "shard" else []
    return kill_jobs.make_training(draw, folder / "config", ranks, options)


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill runs at random instants.")
    parser.add_argument("--kills", type=int, default=200, help="how many (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the choices (%(default)s)")
    parser.add_argument("--per-run", type=int, default=5, help="kills per config (%(default)s)")
    parser.add_argument("--kinds", nargs="+", choices=sorted(set(KINDS)), default=KINDS)
    parser.add_argument("--folder", type=Path, help="kept afterwards; by default a temporary one")
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp())
    draw = random.Random(args.seed)
    kill_jobs.import_all()
    counts: Counter = Counter()
    while counts["kills"] < args.kills:
        part = folder / f"run_{counts['runs']}"
        counts["runs"] += 1
        job = make_job(draw.choice(args.kinds), draw, part)
        for result in try_kills(job, part, draw, min(args.per_run, args.kills - counts["kills"])):
            print(json.dumps({"run": part.name, **result}), flush=True)
            was_running = set(result["ends"]) != {"0"}
            counts["kills" if was_running else "too late"] += 1
            counts[result["job"]] += 1
            counts[result["signal"]] += 1
            counts["lost"] += result["lost"]
            counts["different"] += bool(result["differs"])
            counts["wrong status"] += not result["right_end"]
            counts["workers left"] += result["workers"]
    print(json.dumps(counts))
    if args.folder is None:
        shutil.rmtree(folder)
    return int(any(counts[name] for name in BAD))


if __name__ == "__main__":
    sys.exit(main())
