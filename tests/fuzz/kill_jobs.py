"""What is killed: trainings, drawing data, converting; and what an undisturbed one leaves."""

import os
import random
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from kill_task import write_kill_config
from swin_weights import microsoft_state

import swin_mm.engine.hooks.curves  # noqa: F401
from swin_mm.checkpoint import load_checkpoint_file
from swin_mm.checkpoint.files.sharded import is_sharded
from swin_mm.cli.config import load_config
from swin_mm.cli.main import import_command, run_command
from swin_mm.datasets.shapes import presets, write_shapes

# What a stop and a resume change in any case, and times.
VARYING = {
    *("time", "data_time", "eta", "experiment_name"),
    *("cfg", "config", "last_ckpt", "best_ckpt"),  # with the path of the work folder
    "mmengine_version",  # with the commit of the current folder
}

EPOCHS = "train_cfg = dict(by_epoch=True, max_epochs=3, val_interval={val})\n"
STEPS = """
train_cfg = dict(by_epoch=False, max_iters=12, val_interval={val})
train_dataloader['sampler'] = dict(type='{sampler}', shuffle=True)
param_scheduler = []
"""
BY_STEP = "default_hooks['checkpoint'].update(by_epoch=False, interval={interval})\n"
DETECTOR = """
_base_ = '{base}'
custom_imports = dict(imports=['swin_mm', 'kill_task'], allow_failed_imports=False)
data_root = '{data}/'
train_dataloader = dict(batch_size=2, num_workers=2, dataset=dict(data_root=data_root))
val_dataloader = dict(batch_size=1, num_workers=1, dataset=dict(data_root=data_root))
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
test_dataloader = test_cfg = test_evaluator = None
train_cfg = dict(max_epochs=3)
default_hooks = dict(
    logger=dict(interval=1),
    checkpoint=dict(interval=1, max_keep_ckpts=1, save_best='coco/bbox_mAP', rule='greater'))
custom_hooks = [dict(type='RecordLosses')]
randomness = dict(seed=1)
"""
BASE = Path(__file__).parents[2] / "configs/mask_rcnn_swin_mini_shapes.py"


def import_all() -> None:
    """Imports here what trainings and the other jobs import, which takes a fork longer than a run.

    Checking the keys of a config imports all that registers itself.
    """
    for name in ("train", "shapes", "convert"):
        import_command(name)
    load_config(str(BASE))


@dataclass
class Job:
    """Something to be killed: what each of its processes runs in a folder, what it leaves there."""

    name: str
    run: Callable[[Path], int]
    describe: Callable[[Path], dict]
    ranks: int = 1

    def start(self, folder: Path, output: Path) -> list[int]:
        """Starts the job as forks of this process, whose numbers it returns."""
        if self.ranks == 1:
            return [fork(lambda: self.run(folder), output)]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        own = dict(WORLD_SIZE=str(self.ranks), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))

        def run(rank: int) -> int:
            os.environ.update(own, RANK=str(rank), LOCAL_RANK=str(rank))
            return self.run(folder)

        return [fork(lambda rank=rank: run(rank), output) for rank in range(self.ranks)]


def fork(function: Callable[[], int], output: Path) -> int:
    """Starts `function` in a fork of this process; returns its id."""
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        # Those of pytest do not write to the descriptors.
        sys.stdout, sys.stderr = (
            os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2)
        )
        torch.set_num_threads(1)  # threads of a parent are not there in its fork
        # As in a terminal: under `nohup`, or in the background of a script, some are ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        status = function()
    except SystemExit as error:
        status = error.code
    except KeyboardInterrupt:  # before the command has begun, which catches it
        status = 130
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


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


def train_job(config: Path, name: str, ranks: int = 1, extra: Sequence[str] = ()) -> Job:
    """Trains, and resumes where something is there to be resumed."""
    options = ["--resume", *extra] + (["--launcher", "pytorch"] if ranks > 1 else [])

    def run(work_dir: Path) -> int:
        return run_command("train", [str(config), "--work-dir", str(work_dir), *options])

    return Job(name, run, describe_training, ranks)


def make_training(
    draw: random.Random, folder: Path, ranks: int = 1, options: Sequence[str] = ()
) -> Job:
    folder.mkdir(parents=True)
    extra = choose_config(draw) + "default_hooks['curves'] = None\n"  # drawing takes longest
    if ranks > 1:
        extra += "train_dataloader['batch_size'] = val_dataloader['batch_size'] = 2\n"
    name = " ".join(["train" if ranks == 1 else "ranks", *options])
    return train_job(write_kill_config(folder, extra), name, ranks, options)


def make_detector(folder: Path) -> Job:
    """Mask R-CNN of the quick start on six images, with boxes and masks measured each epoch."""
    _register_small_preset()
    data = write_shapes(folder / "shapes", "fuzz")
    config = folder / "detector.py"
    config.write_text(DETECTOR.format(base=BASE, data=data))
    return train_job(config, "detector")


def _register_small_preset() -> None:
    presets.PRESETS["fuzz"] = replace(presets.PRESETS["easy"], train=6, val=3)


def make_shapes() -> Job:
    _register_small_preset()

    def run(folder: Path) -> int:
        return run_command("shapes", ["fuzz", "--root", str(folder)])

    return Job("shapes", run, describe_files)


def make_convert(folder: Path) -> Job:
    source = folder / "source.pth"
    torch.save({"model": microsoft_state()}, source)

    def run(folder: Path) -> int:
        folder.mkdir(exist_ok=True)
        target = str(folder / "converted.pth")
        return run_command("convert", [str(source), target, "--to", "timm", "--force"])

    return Job("convert", run, describe_files)


def _read_checkpoint(path: Path) -> object:
    """The content of a checkpoint without times and what names the run."""
    if path.is_dir():
        return _simplify(load_checkpoint_file(path))
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
    paths = sorted(path for path in folder.iterdir() if path.is_file() or is_sharded(path))
    content: dict[str, object] = {"files": [path.name for path in paths]}
    for path in paths:
        if path.suffix == ".pth" or is_sharded(path):
            content[path.name] = _read_checkpoint(path)
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
        else str(_read_checkpoint(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def differences(found: object, wanted: object, where: str = "") -> list[str]:
    """Where two descriptions differ, as paths of keys."""
    if not (isinstance(found, dict) and isinstance(wanted, dict)):
        return [] if found == wanted else [where]
    keys = sorted({*found, *wanted})
    parts = (differences(found.get(key), wanted.get(key), f"{where}/{key}") for key in keys)
    return [path for part in parts for path in part]


def is_alive(process: int | str) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def list_children(process: int) -> list[str]:
    """The processes that a process has started, such as workers of its data loaders."""
    try:
        return Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def signal_process(process: int, number: signal.Signals) -> None:
    """Sends a signal to a process, which may have ended."""
    with suppress(ProcessLookupError):
        os.kill(process, number)
