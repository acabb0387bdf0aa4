"""Trains each family of recipes small, with our classes and with mmdet's and mmseg's own.

Both sides have the same backbone size, heads, data, settings, seeds and initial weights. What is
done already is not repeated, so an interrupted run goes on. The table goes to configs/README.md and
has only rows that were measured: `--table` writes it from the results that there are.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.model.utils import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from swin_mm.cli.overrides import runner_keys
from swin_mm.configs import bare_type, find_config, read_config
from swin_mm.models.backbones.arguments import ARCHS

README = Path(__file__).parents[1] / "configs" / "README.md"
BEGIN = "<!-- families: begin; written by tools/train_families.py -->"
END = "<!-- families: end -->"
SIDES = ("ours", "stock")
WIDTH = 64  # channels of the backbone's first stage; group norms of 32 groups divide its halves
BASES = {"mmdet": "mask_rcnn_swin_mini_shapes", "mmseg": "upernet_swin_mini_shapes"}
CLASSES = {"mmdet": 6, "mmseg": 7}  # of the built-in shapes; label maps have the background too
CLASS_KEYS = ("num_classes", "num_things_classes")
# What they are called, and what makes percent of them.
METRICS = {"coco/bbox_mAP": ("box AP", 100), "coco/segm_mAP": ("mask AP", 100), "mIoU": ("mIoU", 1)}
# For heads with queries, which learn slowly and diverge at the rate of the others.
QUERY_RATE = 3e-4


class Family(NamedTuple):
    """A kind of model.

    Attributes:
        recipe: The config whose model is trained.
        rate: Learning rate.
    """

    recipe: str
    rate: float = 1e-3


FAMILIES = {
    "Mask R-CNN": Family("mask_rcnn_swin_t"),
    "Cascade Mask R-CNN": Family("cascade_mask_rcnn_swin_t"),
    "Hybrid Task Cascade": Family("htc_swin_b_6x"),
    "RetinaNet": Family("retinanet_swin_t"),
    "ATSS": Family("atss_swin_t_3x"),
    "RepPoints": Family("reppoints_swin_t_3x"),
    "RTMDet": Family("rtmdet_swin_b"),
    "Sparse R-CNN": Family("sparse_rcnn_swin_t_3x", QUERY_RATE),
    "DINO": Family("dino_swin_t", QUERY_RATE),
    "Mask2Former, instances": Family("mask2former_swin_t", QUERY_RATE),
    "UPerNet": Family("upernet_swin_t"),
    "K-Net": Family("knet_swin_t", QUERY_RATE),
    "Mask2Former, label maps": Family("mask2former_swin_t_ade20k", QUERY_RATE),
}


def main() -> None:
    """Trains what has no result yet, then writes the table."""
    args = parse_args()
    for name in [] if args.table else args.families:
        for seed in args.seeds:
            for side in SIDES:
                train(name, seed, side, args)
    write_table(args)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N")
    parser.add_argument("--steps", type=int, default=1000, metavar="N", help="(%(default)s)")
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/families"), metavar="DIR")
    parser.add_argument("--table", action="store_true", help="train nothing, write the table")
    return parser.parse_args()


def train(name: str, seed: int, side: str, args: argparse.Namespace) -> None:
    """Trains one side of a family in a process of its own, and keeps its result."""
    folder = run_folder(name, seed, side, args)
    if (folder / "result.json").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    initial = folder.parent / "initial.pth"
    if not initial.is_file():
        save_initial_weights(build_config(name, seed, "stock", args.steps), seed, initial)
    cfg = build_config(name, seed, side, args.steps)
    cfg.load_from = str(initial)
    cfg.dump(folder / "config.py")
    command = [sys.executable, "-m", "swin_mm.cli.main", "train", str(folder / "config.py")]
    print(f"{name}, seed {seed}, {side}", flush=True)
    subprocess.run([*command, "--work-dir", str(folder), "--resume"], check=True)
    result = {"commit": read_commit(), "device": read_device(), "scores": read_scores(folder)}
    (folder / "result.json").write_text(json.dumps(result, indent=1), encoding="utf-8")


def run_folder(name: str, seed: int, side: str, args: argparse.Namespace) -> Path:
    """Where a run is; runs of other lengths are apart."""
    return args.work_dir / f"{FAMILIES[name].recipe}_{args.steps}" / str(seed) / side


def build_config(name: str, seed: int, side: str, steps: int) -> Config:
    """The config of a run: the recipe's model, small, on the easy shapes from scratch."""
    recipe, rate = FAMILIES[name]
    source = read_config(find_config(recipe))
    scope = source.default_scope
    cfg = read_config(find_config(BASES[scope]))
    source.model.data_preprocessor = dict(cfg.model.data_preprocessor)
    cfg.model = source.model
    shrink(cfg.model)
    set_classes(cfg.model, CLASSES[scope])
    if scope == "mmdet":
        has_masks = "segm" in str(source.val_evaluator)
        cfg.val_evaluator.metric = ["bbox", "segm"] if has_masks else ["bbox"]
        cfg.test_evaluator = cfg.val_evaluator
        if "semantic_head" in cfg.model.get("roi_head", {}):
            read_label_maps(cfg)
    for step in cfg.train_dataloader.dataset.pipeline:
        step.type = bare_type(step)  # mmdet's and mmseg's, which either side takes
    if side == "stock":
        take_stock(cfg.model, scope)
    cfg.randomness = dict(seed=seed)
    cfg.train_cfg = dict(type="swin_mm.IterBasedTrainLoop", max_iters=steps, val_interval=steps)
    cfg.param_scheduler = [
        dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=max(1, steps // 20)),
        dict(type="CosineAnnealingLR", begin=0, end=steps, eta_min=1e-6, by_epoch=False),
    ]
    cfg.optim_wrapper.optimizer.lr = rate
    cfg.log_processor.by_epoch = False
    cfg.default_hooks.checkpoint.update(
        by_epoch=False, interval=max(1, steps // 4), max_keep_ckpts=1, save_best=None
    )
    # Variables of the files are not used in what is written from here.
    return Config({key: value for key, value in cfg.items() if key in runner_keys()})


def walk(node: Any) -> Iterator[dict]:
    """All dicts in a config."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list | tuple):
        for child in node:
            yield from walk(child)


def shrink(model: Config) -> None:
    """Gives a model a small backbone with arguments that the stock class has too, in place."""
    old = model.backbone
    width = old.get("embed_dims") or ARCHS[old.get("arch") or "tiny"].embed_dims
    widths = {width * 2**i: WIDTH * 2**i for i in range(4)}
    model.backbone = dict(
        type="swin_mm.SwinTransformer",
        embed_dims=WIDTH,
        depths=(2, 2, 2, 2),
        num_heads=(2, 4, 8, 16),
        window_size=5,
        drop_path_rate=0.0,
        out_indices=old.get("out_indices", (0, 1, 2, 3)),
    )
    for part in walk({key: part for key, part in model.items() if key != "backbone"}):
        if isinstance(part.get("in_channels"), list | tuple):
            part["in_channels"] = [widths[channels] for channels in part["in_channels"]]
    if "auxiliary_head" in model:
        model.auxiliary_head.in_channels = widths[model.auxiliary_head.in_channels]


def set_classes(model: Config, count: int) -> None:
    """Tells all heads the number of classes, and losses with a weight for each, in place."""
    for part in walk(model):
        for key in CLASS_KEYS:
            if key in part:
                part[key] = count
        weights = part.get("class_weight")
        if isinstance(weights, list | tuple):  # the last is that of nothing
            part["class_weight"] = [1.0] * count + [weights[-1]]


def read_label_maps(cfg: Config) -> None:
    """Has training read the shapes' label maps, for a semantic branch, in place."""
    dataset = cfg.train_dataloader.dataset
    dataset.data_prefix = dict(img="train/", seg="semantic/train/")
    for step in dataset.pipeline:
        if bare_type(step) == "LoadAnnotations":
            step.update(with_seg=True)
    cfg.model.data_preprocessor.update(pad_seg=True)
    cfg.model.roi_head.semantic_head.num_classes = CLASSES["mmseg"]


def take_stock(model: Config, scope: str) -> None:
    """Takes the classes of mmdet or mmseg for those of the same names of ours, in place."""
    for part in walk(model):
        kind = part.get("type")
        if isinstance(kind, str) and kind.startswith("swin_mm."):
            part["type"] = f"{scope}.{bare_type(part)}"


def save_initial_weights(cfg: Config, seed: int, path: Path) -> None:
    """Draws the weights that both sides begin with, from the stock model."""
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        torch.manual_seed(seed)
        model = revert_sync_batchnorm(MODELS.build(cfg.model))
        model.init_weights()
        for module in model.backbone.modules():
            # The published 0.02 is for wide layers; here signals would fade from stage to stage.
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
        torch.save({"state_dict": model.state_dict(), "meta": {}}, path)


def read_scores(folder: Path) -> dict[str, float]:
    """The last scores that a run has logged."""
    logs = sorted(folder.glob("*/vis_data/scalars.json"))
    lines = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    last = next(line for line in reversed(lines) if METRICS.keys() & line.keys())
    return {metric: last[metric] for metric in METRICS if metric in last}


def read_commit() -> str:
    command = ["git", "-C", str(README.parent), "rev-parse", "--short", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True)
    return found.stdout.strip() or "unknown"


def read_device() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    names = (
        [
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ]
        if Path("/proc/cpuinfo").is_file()
        else []
    )
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def write_table(args: argparse.Namespace) -> None:
    """Writes what was measured between two marks of configs/README.md."""
    rows, commits, devices = [], set(), set()
    for name, family in FAMILIES.items():
        results = {side: [] for side in SIDES}
        seeds = []
        for seed in args.seeds:
            files = [run_folder(name, seed, side, args) / "result.json" for side in SIDES]
            if not all(file.is_file() for file in files):
                continue
            seeds.append(str(seed))
            for side, file in zip(SIDES, files, strict=True):
                result = json.loads(file.read_text(encoding="utf-8"))
                results[side].append(result["scores"])
                commits.add(result["commit"])
                devices.add(result["device"])
        for metric in results["ours"][0] if seeds else ():
            score, factor = METRICS[metric]
            both = ([factor * run[metric] for run in results[side]] for side in SIDES)
            cells = [name, f"[`{family.recipe}`]({family.recipe}.py)", score]
            cells += [*map(format_scores, both), ", ".join(seeds)]
            rows.append(f"| {' | '.join(cells)} |")
    if not rows:
        print("nothing is measured yet")
        return
    head = [
        f"{args.steps} steps; {'; '.join(sorted(devices))}; at {', '.join(sorted(commits))}:",
        "",
        "| Family | Model of | Score | swin_mm | stock | Seeds |",
        "| --- | --- | --- | --: | --: | --- |",
    ]
    table = "\n".join([*head, *rows])
    print(table)
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    README.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}", encoding="utf-8")


def format_scores(scores: list[float]) -> str:
    """Mean and, of several, standard deviation."""
    spread = f" ({stdev(scores):.1f})" if len(scores) > 1 else ""
    return f"{mean(scores):.1f}{spread}"


if __name__ == "__main__":
    main()
