"""Trains the toy task, killing it at every step it takes in the file system, and resumes it.

Run as `kill_everywhere.py CONFIG FOLDER`. Prints a line of JSON for a training that was left alone,
then one for each kill. Each training is a fork of this process, since importing takes longer.
"""

import builtins
import json
import os
import signal
import sys
import traceback
import warnings
from itertools import count
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import Runner

STEPS = ("replace", "remove")


def kill_at_step(number: int, folder: Path, journal: Path) -> None:
    """Makes this process die at the `number`-th of its steps in the file system.

    It dies before it renames or deletes a file, and after it opens one for writing, which empties
    it. What it does outside of `folder` does not count.
    """
    steps = count()

    def die_if_due(name: str, path: object) -> None:
        is_elsewhere = str(path).startswith("/") and folder not in Path(path).parents
        if not is_elsewhere and next(steps) == number:
            journal.write_text(f"{name} {path}")
            os.kill(os.getpid(), signal.SIGKILL)

    def wrap(name: str) -> None:
        original = getattr(os, name)

        def step(*args, **kwargs):
            die_if_due(name, args[-1])
            return original(*args, **kwargs)

        setattr(os, name, step)

    for name in STEPS:
        wrap(name)
    original_open = builtins.open

    def open_and_die(path, mode="r", *args, **kwargs):
        file = original_open(path, mode, *args, **kwargs)
        if mode in ("w", "wb") and path != journal:
            die_if_due("open", path)
        return file

    builtins.open = open_and_die


def train(config: str, work_dir: Path, resume: bool) -> None:
    cfg = Config.fromfile(config)
    cfg.merge_from_dict({"work_dir": str(work_dir), "resume": resume, "log_level": "ERROR"})
    # Tidying the text of the config for each checkpoint would take most of the time.
    Runner.from_cfg(Config(cfg.to_dict(), filename=config, format_python_code=False)).train()


def in_child(function, *args) -> int:
    """Runs `function` in a fork of this process and returns the child's wait status."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        function(*args)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def killed_run(config: str, work_dir: Path, number: int, journal: Path) -> None:
    kill_at_step(number, work_dir, journal)
    train(config, work_dir, resume=False)


def report(work_dir: Path, **facts) -> None:
    files = sorted(path.name for path in work_dir.iterdir() if path.is_file())
    final = torch.load(work_dir / "epoch_2.pth", weights_only=False)
    state = {key: str(final[key]) for key in ("state_dict", "optimizer", "param_schedulers")}
    best = final["message_hub"]["runtime_info"]["best_score"]
    print(json.dumps({"files": files, "state": state, "best": best, **facts}), flush=True)


def main() -> None:
    config, folder = sys.argv[1], Path(sys.argv[2])
    # Also imports here, once for all, what training imports.
    train(config, folder / "undisturbed", resume=False)
    report(folder / "undisturbed")
    for number in count():
        work_dir, journal = folder / f"killed_{number}", folder / "journal"
        status = in_child(killed_run, config, work_dir, number, journal)
        if os.WIFEXITED(status):
            sys.exit(os.WEXITSTATUS(status))
        survivors = sorted(path.name for path in work_dir.glob("*.pth"))
        if in_child(train, config, work_dir, True) != 0:
            sys.exit(f"cannot resume after a kill at {journal.read_text()}")
        report(work_dir, killed_at=journal.read_text(), survivors=survivors)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
