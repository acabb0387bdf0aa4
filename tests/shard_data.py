"""Models on data, divided or not: losses, metrics and predictions side by side.

    python tests/shard_data.py WORK_DIRS [--names mask_rcnn upernet mask2former] [--steps 16]

WORK_DIRS has the two models that `tools/quickstart.sh` trains; Mask2Former is small and starts
anew. Each is trained further, in float32 and at a constant rate, by one process without `--shard`
and by 1, 2 and 4 with it. A step has four images, one of which a process takes at a time, and the
random numbers of an image depend on its place in the run alone. Then the same weights are measured
by 1, 2 and 4 processes, and predicted with from a folder and from a file.
"""

import argparse
import json
import os
import socket
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "configs"))
sys.path.insert(0, str(Path(__file__).parent / "fuzz"))

import numpy as np
import torch
from fuzz_kills import wait
from kill_jobs import fork, import_all
from mmengine.config import Config
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from recipe_tools import cut, load, narrow

import swin_mm
from swin_mm.checkpoint import load_checkpoint_file
from swin_mm.cli.main import run_command
from swin_mm.datasets.shapes import presets, write_shapes
from swin_mm.engine import loops, randomness

IMAGES = 4  # of a step
CLOSE = 1e-5
RECORDS = "records"
RECIPES = {
    "mask_rcnn": "mask_rcnn_swin_mini_shapes",
    "upernet": "upernet_swin_mini_shapes",
    "mask2former": "mask2former_swin_t",
}
MAIN = ("bbox_mAP", "segm_mAP", "mIoU")
VALIDATED = 30  # images, which four processes cannot share evenly
LIMIT = 60.0  # seconds that a process may outlive another


@HOOKS.register_module()
class RecordBatches(Hook):
    """Appends the losses of each batch, by its number in the run, and all metrics to a file."""

    def _write(self, runner, **content) -> None:
        with Path(runner.work_dir, RECORDS).open("a") as file:
            file.write(json.dumps(content) + "\n")

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        losses = {name: value.item() for name, value in outputs.items() if "loss" in name}
        self._write(runner, batch=runner.iter * get_world_size() + get_rank(), losses=losses)

    def after_val_epoch(self, runner, metrics=None) -> None:
        if get_rank() == 0:
            self._write(runner, metrics={name: float(value) for name, value in metrics.items()})

    after_test_epoch = after_val_epoch


def seed_by_batch(kind: int, seed: int, rank: int, step: int, *place: int) -> None:
    """Seeds by the number of a batch in the run, however many processes take one each."""
    seed_generators(kind, seed, step * get_world_size() + rank, *place)


seed_generators = randomness.seed_generators


class Model:
    """A recipe, where its weights start, and a folder for what comes of it."""

    def __init__(self, name: str, start: Path | None, folder: Path, data: Path) -> None:
        self.name, self.start, self.folder, self.data = name, start, folder / name, data
        self.folder.mkdir()

    def write_config(self, processes: int, steps: int, **changes) -> Path:
        """Writes the config of a run of so many processes and optimizer steps."""
        cfg = load(RECIPES[self.name])
        if self.name == "mask2former":
            use_shapes(cfg)
        root = f"{self.data}/"
        for loader in (cfg.train_dataloader, cfg.val_dataloader):
            loader.update(batch_size=1, num_workers=0, persistent_workers=False)
            loader.dataset.data_root = root
        if "ann_file" in cfg.val_evaluator:
            cfg.val_evaluator.ann_file = root + "annotations/instances_val.json"
        batches = IMAGES // processes
        cfg.optim_wrapper.accumulative_counts = batches
        number = steps * batches
        cfg.train_cfg = dict(
            type="swin_mm.IterBasedTrainLoop", max_iters=number, val_interval=number
        )
        checkpoint = dict(by_epoch=False, interval=-1, max_keep_ckpts=-1, save_best=None)
        cfg.default_hooks.checkpoint.update(checkpoint)
        cfg.default_hooks.curves = None
        cfg.update(
            test_dataloader=cfg.val_dataloader,
            test_evaluator=cfg.val_evaluator,
            param_scheduler=[],
            log_processor=dict(by_epoch=False),
            randomness=dict(seed=0),
            custom_hooks=[dict(type="RecordBatches")],
        )
        cfg.merge_from_dict(changes)
        path = self.folder / f"config_{len(list(self.folder.iterdir()))}.py"
        cfg.dump(path)
        return path

    def run(self, command: str, options: list, processes: int, is_divided: bool = True) -> Path:
        """Runs a command in new processes; returns its work folder."""
        work_dir = self.folder / f"run_{len(list(self.folder.iterdir()))}"
        options = [*options, "--work-dir", work_dir]
        if is_divided or processes > 1:
            options += ["--launcher", "pytorch"]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        own = dict(WORLD_SIZE=str(processes), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))

        def start(rank: int) -> int:
            os.environ.update(own, RANK=str(rank), LOCAL_RANK=str(rank))
            return run_command(command, [*map(str, options)])

        output = self.folder / "output"
        ids = [fork(lambda rank=rank: start(rank), output) for rank in range(processes)]
        if set(wait(ids, LIMIT)) != {"0"}:
            raise RuntimeError(output.read_text()[-5000:])
        return work_dir

    def train(self, processes: int, steps: int, shard: bool = True, **changes) -> Path:
        """Trains; returns the work folder."""
        options: list = [self.write_config(processes, steps, **changes)]
        options += ["--shard"] if shard else []
        options += ["--weights", self.start] if self.start else []
        return self.run("train", options, processes, shard)

    def train_rounded(self, steps: int) -> Path:
        """Trains in one process from weights that differ by a rounding of float32."""
        start, self.start = self.start, self.folder / "rounded.pth"
        state = load_checkpoint_file(start)["state_dict"]
        torch.manual_seed(0)
        for value in state.values():
            if value.is_floating_point():
                value *= 1 + torch.finfo(value.dtype).eps * (torch.rand_like(value) - 0.5)
        torch.save({"state_dict": state}, self.start)
        work_dir = self.train(1, steps, shard=False)
        self.start = start
        return work_dir

    def measure(self, checkpoint: Path, processes: int) -> dict[str, float]:
        """What `test` measures."""
        config = self.write_config(processes, 1)
        return read(self.run("test", [config, checkpoint], processes, False))[1]

    def measure_sharded(self, checkpoint: Path, processes: int) -> dict[str, float]:
        """What a training with `--shard` measures after a step that changes nothing."""
        start, self.start = self.start, checkpoint
        work_dir = self.train(processes, 1, **{"optim_wrapper.optimizer.lr": 0.0})
        self.start = start
        return read(work_dir)[1]

    def predict(self, checkpoint: Path) -> list[dict]:
        """Everything predicted for the validation images, in this process."""
        config = Config.fromfile(self.write_config(1, 1))
        model = swin_mm.load(config, checkpoint, device="cpu")
        options = {} if self.name == "upernet" else {"score_thr": 0.0}
        images = sorted((self.data / "val").iterdir())[: VALIDATED // 3]
        fields = ("boxes", "scores", "labels", "masks", "label_map")
        found = [model.predict(image, **options) for image in images]
        return [{field: getattr(one, field) for field in fields} for one in found]


def use_shapes(cfg: Config) -> None:
    """Gives a recipe of COCO the built-in data, and few layers and channels."""
    data = load(RECIPES["mask_rcnn"])
    for key in ("train_dataloader", "val_dataloader", "val_evaluator"):
        cfg[key] = data[key]
    cut(cfg.model)
    narrow(cfg.model)
    classes = len(presets.CLASSES)
    for part in (cfg.model.panoptic_head, cfg.model.panoptic_fusion_head):
        part.update(num_things_classes=classes, num_stuff_classes=0)
    cfg.model.panoptic_head.loss_cls.class_weight = [1.0] * classes + [0.1]


def read(work_dir: Path) -> tuple[dict[int, dict[str, float]], dict[str, float]]:
    """The losses of each batch, and the last metrics."""
    losses, metrics = {}, {}
    for line in (work_dir / RECORDS).read_text().splitlines():
        content = json.loads(line)
        if "batch" in content:
            losses[content["batch"]] = content["losses"]
        metrics = content.get("metrics", metrics)
    return losses, metrics


def compare_losses(found: dict, wanted: dict) -> list[float]:
    """For each step the largest difference of a loss, relative to the sum of those of its image."""
    assert found.keys() == wanted.keys() and len(wanted) % IMAGES == 0
    errors = [0.0] * (len(wanted) // IMAGES)
    for batch, losses in wanted.items():
        error = max(abs(found[batch][name] - value) for name, value in losses.items())
        errors[batch // IMAGES] = max(errors[batch // IMAGES], error / losses["loss"])
    return errors


def are_equal(found: object, wanted: object) -> bool:
    """Whether all numbers are the same to the bit."""
    if isinstance(wanted, dict):
        pairs = ((found.get(key), value) for key, value in wanted.items())
        return found.keys() == wanted.keys() and all(are_equal(*pair) for pair in pairs)
    if isinstance(wanted, list | tuple):
        return len(found) == len(wanted) and all(map(are_equal, found, wanted))
    if isinstance(wanted, torch.Tensor):
        return torch.equal(found, wanted)
    return np.array_equal(found, wanted) if isinstance(wanted, np.ndarray) else found == wanted


def main_metrics(metrics: dict[str, float]) -> str:
    names = [
        name for name in metrics if name.rpartition("/")[2] in ("bbox_mAP", "segm_mAP", "mIoU")
    ]
    return ", ".join(f"{name} {metrics[name]:.4f}" for name in names)


def compare_training(model: Model, steps: int, several: list[int]) -> bool:
    """Trains in one process without and in several with `--shard`; the first step must agree."""
    wanted, metrics = read(model.train(1, steps, shard=False))
    print(f"{model.name}, 1 process without --shard: {main_metrics(metrics)}", flush=True)
    show_losses("the same, weights changed by rounding", model.train_rounded(steps), wanted)
    several_close = [
        show_losses(f"{processes} with --shard", model.train(processes, steps), wanted)
        for processes in several
    ]
    return all(several_close)


def show_losses(name: str, work_dir: Path, wanted: dict) -> int:
    """Prints how far losses are from those wanted; returns the number of close steps at first."""
    found, metrics = read(work_dir)
    errors = compare_losses(found, wanted)
    close = next((i for i, error in enumerate(errors) if error > CLOSE), len(errors))
    shown = ", ".join(f"{error:.1e}" for error in errors)
    print(f"  {name}: {main_metrics(metrics)}")
    print(f"  {close} of {len(errors)} steps within {CLOSE:g}: {shown}", flush=True)
    return close


def compare_measures(model: Model, folder: Path, file: Path) -> bool:
    """Measures the weights in a folder by 1, 2 and 4 processes, divided or not; all figures count.

    They must be equal to those of the file in one process.
    """
    wanted = model.measure(file, 1)
    print(f"{model.name}, the same weights: {main_metrics(wanted)}")
    is_right = True
    for way in (model.measure, model.measure_sharded):
        for processes in (1, 2, 4):
            is_equal = way(folder, processes) == wanted
            is_right = is_right and is_equal
            print(f"  {way.__name__}, {processes} processes: equal: {is_equal}", flush=True)
    return is_right


def compare_files(model: Model) -> tuple[bool, list[Path]]:
    """A folder of two processes beside the file that one of them gathers, of equal trainings.

    Returns:
        Whether weights, states of the optimizer and predictions are the same, and both checkpoints.
    """
    name = f"iter_{IMAGES // 2 * 2}"  # the second of three steps, since the last becomes a file
    options = dict(val_dataloader=None, val_evaluator=None, val_cfg=None)
    options["default_hooks.checkpoint.interval"] = IMAGES // 2
    folder = model.train(2, 3, **options) / name
    options["default_hooks.checkpoint.whole_files"] = True
    file = model.train(2, 3, **options) / f"{name}.pth"
    ours, theirs = load_checkpoint_file(folder), torch.load(file, weights_only=False)
    same = {part: are_equal(dict(ours[part]), dict(theirs[part])) for part in ("state_dict",)}
    same["optimizer"] = are_equal(ours["optimizer"], theirs["optimizer"])
    found, wanted = model.predict(folder), model.predict(file)
    same["predictions"] = are_equal(found, wanted)
    objects = sum(len(one["scores"]) for one in wanted if one["scores"] is not None)
    print(f"{model.name}, folder and file: {same}, {len(wanted)} images, {objects} objects")
    return all(same.values()), [folder, file]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("work_dirs", type=Path, help="such as work_dirs/quickstart")
    parser.add_argument("--names", nargs="+", choices=RECIPES, default=[*RECIPES])
    parser.add_argument("--steps", type=int, default=16, help="(%(default)s)")
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--losses-only", action="store_true")
    args = parser.parse_args()
    import_all()
    randomness.seed_generators = loops.seed_generators = seed_by_batch
    preset = replace(presets.EASY, train=IMAGES * (args.steps + 8), val=VALIDATED)
    presets.PRESETS["shards"] = preset
    is_right = True
    with tempfile.TemporaryDirectory() as folder:
        data = write_shapes(Path(folder) / "shapes", "shards")
        for name in args.names:
            start = None
            if name != "mask2former":
                work_dir = args.work_dirs / RECIPES[name]
                start = Path((work_dir / "last_checkpoint").read_text()).name
                start = (work_dir / start).resolve()
            model = Model(name, start, Path(folder), Path(data))
            if start:
                is_right = compare_training(model, args.steps, args.processes) and is_right
            if args.losses_only:
                continue
            is_same, checkpoints = compare_files(model)
            is_right = is_right and is_same
            if start:
                is_right = compare_measures(model, *checkpoints) and is_right
    return int(not is_right)


if __name__ == "__main__":
    sys.exit(main())
