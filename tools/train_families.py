"""Trains each family of recipes small, with our classes and with mmdet's and mmseg's own.

Both sides have the same backbone size, heads, data, settings, seeds and initial weights. The first
seed of all families comes first, then the next. What is done already is not repeated, so an
interrupted run goes on, and two that are started share the work. Each run's scores are a file in
benchmarks/families/, which the repository keeps: another machine goes on from there. The table goes
to configs/README.md and has only rows that were measured: `--table` writes it from these files.
"""

import argparse
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model.utils import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from swin_mm.benchmark.machine import device_name, find_commit
from swin_mm.cli.overrides import runner_keys
from swin_mm.configs import bare_type, find_config, read_config
from swin_mm.models.backbones.arguments import ARCHS

README = Path(__file__).parents[1] / "configs" / "README.md"
BEGIN = "<!-- families: begin; written by tools/train_families.py -->"
RESULTS = README.parents[1] / "benchmarks" / "families"
END = "<!-- families: end -->"
SIDES = ("ours", "stock")
WIDTH = 64  # channels of the backbone's first stage; group norms of 32 groups divide its halves
BASES = {"mmdet": "mask_rcnn_swin_mini_shapes", "mmseg": "upernet_swin_mini_shapes"}
CLASSES = {"mmdet": 6, "mmseg": 7}  # of the built-in shapes; label maps have the background too
WIDTH_KEYS = ("channel", "channels", "embed_dims", "num_feats")
DEFAULT_WIDTHS = {  # of heads whose configs do not state them
    "RepPointsV2Head": dict(feat_channels=256, point_feat_channels=256),
    "MaskRepPointsV2Head": dict(feat_channels=256, point_feat_channels=256, mask_channels=128),
}
LIMITS = {
    **dict(num_queries=50, num_proposals=50, num_dn_queries=20, num_layers=3),
    **dict(num=64, nms_pre=300, max_per_img=100, num_points=1024),
}
CLASS_KEYS = ("num_classes", "num_things_classes")
# What they are called, and what makes percent of them.
METRICS = {
    "coco/bbox_mAP": ("box AP", 100),
    "coco/segm_mAP": ("mask AP", 100),
    "coco_panoptic/PQ": ("PQ", 1),
    "mIoU": ("mIoU", 1),
}
# For heads with queries, and RetinaNet's without norms: at the rate of the others they diverge, or
# spikes of the gradient amplify rounding until both sides learn different things.
LOW_RATE = 3e-4


class Family(NamedTuple):
    """A kind of model.

    Attributes:
        recipe: The config whose model is trained.
        rate: Learning rate.
        sides: Those that there are: of RepPoints V2 mmdet has no classes.
        narrower: By how much necks and heads are. mmdet's DINO works with 256 channels alone.
    """

    recipe: str
    rate: float = 1e-3
    sides: tuple[str, ...] = SIDES
    narrower: int = 4


FAMILIES = {  # the cheapest first
    "ATSS": Family("atss_swin_t_3x"),
    "RetinaNet": Family("retinanet_swin_t", LOW_RATE),
    "RTMDet": Family("rtmdet_swin_b"),
    "UPerNet": Family("upernet_swin_t"),
    "Mask2Former, label maps": Family("mask2former_swin_t_ade20k", LOW_RATE),
    "K-Net": Family("knet_swin_t", LOW_RATE),
    "Mask R-CNN": Family("mask_rcnn_swin_t"),
    "Mask2Former, panoptic": Family("mask2former_swin_t_panoptic", LOW_RATE),
    "Mask2Former, instances": Family("mask2former_swin_t", LOW_RATE),
    "Sparse R-CNN": Family("sparse_rcnn_swin_t_3x", LOW_RATE),
    "RepPoints": Family("reppoints_swin_t_3x"),
    "RepPoints V2": Family("reppoints_v2_swin_t_3x", sides=("ours",)),
    "Mask RepPoints V2": Family("mask_reppoints_v2_swin_t_3x", sides=("ours",)),
    "Cascade Mask R-CNN": Family("cascade_mask_rcnn_swin_t"),
    "Hybrid Task Cascade": Family("htc_swin_b_6x"),
    "DINO": Family("dino_swin_t", LOW_RATE, narrower=1),
}


def main() -> None:
    """Trains what has no result yet, then writes the table."""
    args = parse_args()
    # Asked before any run: the one that ends first writes configs/README.md.
    args.commit = find_commit(README.parent) or "unknown"
    runs = [
        (name, seed, side)
        for seed in args.seeds
        for name in args.families
        for side in FAMILIES[name].sides
    ]
    failed = []
    for number, run in enumerate([] if args.table else runs, start=1):
        print(f"run {number} of {len(runs)}: {describe(*run)}", flush=True)
        try:
            train(*run, args)
        except subprocess.CalledProcessError:  # the others still run
            failed.append(describe(*run))
    write_table(args)
    if failed:
        sys.exit(f"failed, see above: {'; '.join(failed)}")


def describe(name: str, seed: int, side: str) -> str:
    return f"{name}, seed {seed}, {side}"


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N")
    parser.add_argument("--steps", type=int, default=1000, metavar="N", help="(%(default)s)")
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/families"), metavar="DIR")
    parser.add_argument(
        "--results", type=Path, default=RESULTS, metavar="DIR", help="of scores (%(default)s)"
    )
    parser.add_argument("--table", action="store_true", help="train nothing, write the table")
    return parser.parse_args()


def train(name: str, seed: int, side: str, args: argparse.Namespace) -> None:
    """Trains one side of a family in a process of its own, and keeps its result."""
    if result_file(name, seed, side, args).is_file():
        return
    folder = run_folder(name, seed, side, args)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("is being trained by another process")
            return
        initial = folder.parent / "initial.pth"
        if not initial.is_file():
            source = FAMILIES[name].sides[-1]
            save_initial_weights(build_config(name, seed, source, args.steps), seed, initial)
        cfg = build_config(name, seed, side, args.steps)
        cfg.load_from = str(initial)
        cfg.dump(folder / "config.py")
        command = [sys.executable, "-m", "swin_mm.cli.main", "train", str(folder / "config.py")]
        begin = time.monotonic()
        # The child holds the lock too: were this process killed alone, it would train on.
        subprocess.run(
            [*command, "--work-dir", str(folder), "--resume"], check=True, pass_fds=[lock.fileno()]
        )
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        result = {
            "commit": args.commit,
            "device": f"{device_name(device)}, {os.cpu_count()} cores",
            "minutes": round((time.monotonic() - begin) / 60, 1),  # since the last start
            "scores": read_scores(folder, cfg.val_evaluator),
        }
        args.results.mkdir(parents=True, exist_ok=True)
        text = json.dumps(result, indent=1) + "\n"
        result_file(name, seed, side, args).write_text(text, encoding="utf-8")
        remove_weights(name, seed, side, args)


def remove_weights(name: str, seed: int, side: str, args: argparse.Namespace) -> None:
    """Deletes what only a resume needs, which is gigabytes, and last what both sides begin with."""
    folder = run_folder(name, seed, side, args)
    for path in folder.glob("*.pth"):
        path.unlink()
    if all(result_file(name, seed, other, args).is_file() for other in FAMILIES[name].sides):
        (folder.parent / "initial.pth").unlink()


def run_folder(name: str, seed: int, side: str, args: argparse.Namespace) -> Path:
    """Where a run is; runs of other lengths are apart."""
    return args.work_dir / f"{FAMILIES[name].recipe}_{args.steps}" / str(seed) / side


def result_file(name: str, seed: int, side: str, args: argparse.Namespace) -> Path:
    """Where a run's scores are kept."""
    return args.results / f"{FAMILIES[name].recipe}_{args.steps}_{seed}_{side}.json"


def build_config(name: str, seed: int, side: str, steps: int) -> Config:
    """The config of a run: the recipe's model, small, on the easy shapes from scratch."""
    recipe, rate, _, narrower = FAMILIES[name]
    source = read_config(find_config(recipe))
    scope = source.default_scope
    cfg = read_config(find_config(BASES[scope]))
    source.model.data_preprocessor = dict(cfg.model.data_preprocessor)
    cfg.model = source.model
    shrink(cfg.model, narrower)
    set_classes(cfg.model, CLASSES[scope])
    if scope == "mmdet":
        has_masks = "segm" in str(source.val_evaluator)
        cfg.val_evaluator.metric = ["bbox", "segm"] if has_masks else ["bbox"]
        for loader in (cfg.train_dataloader, cfg.val_dataloader):
            for step in loader.dataset.pipeline:
                if bare_type(step) == "LoadAnnotations":
                    step.with_mask = has_masks  # RTMDet without masks fails on them
        if "semantic_head" in cfg.model.get("roi_head", {}):
            read_label_maps(cfg)
        if "Panoptic" in str(source.val_evaluator):
            read_segments(cfg)
        cfg.test_evaluator = cfg.val_evaluator
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


def shrink(model: Config, narrower: int) -> None:
    """Gives a model a small backbone with arguments that the stock class has too, in place.

    Necks and heads become narrower, with few queries, layers and samples of regions.
    """
    old = model.backbone
    width = old.get("embed_dims") or ARCHS[old.get("arch") or "tiny"].embed_dims
    widths = {width * 2**i: WIDTH * 2**i for i in range(4)}
    backbone = dict(
        type="swin_mm.SwinTransformer",
        embed_dims=WIDTH,
        depths=(2, 2, 2, 2),
        num_heads=(2, 4, 8, 16),
        window_size=5,
        drop_path_rate=0.0,
        out_indices=old.get("out_indices", (0, 1, 2, 3)),
    )
    model.backbone = {}
    for part in walk(model):
        for key, value in {**DEFAULT_WIDTHS.get(bare_type(part), {}), **part}.items():
            if key == "in_channels" and isinstance(value, list | tuple):
                part[key] = [widths[channels] for channels in value]
            elif isinstance(value, int) and key.endswith(WIDTH_KEYS):
                part[key] = value // narrower
            elif isinstance(value, int) and key in LIMITS:
                part[key] = min(value, LIMITS[key])
    if "auxiliary_head" in model:
        model.auxiliary_head.in_channels = widths[model.auxiliary_head.in_channels * narrower]
    model.backbone = backbone


def set_classes(model: Config, count: int) -> None:
    """Tells all heads the number of classes, and losses with a weight for each, in place."""
    stuff = int(bool(model.get("panoptic_head", {}).get("num_stuff_classes")))
    for part in walk(model):
        for key in CLASS_KEYS:
            if key in part:
                part[key] = count
        if "num_stuff_classes" in part:
            part["num_stuff_classes"] = stuff  # the background
        weights = part.get("class_weight")
        if isinstance(weights, list | tuple):  # the last is that of nothing
            part["class_weight"] = [1.0] * (count + stuff) + [weights[-1]]


def read_label_maps(cfg: Config) -> None:
    """Has training read the shapes' label maps, for a semantic branch, in place."""
    dataset = cfg.train_dataloader.dataset
    dataset.data_prefix = dict(img="train/", seg="semantic/train/")
    for step in dataset.pipeline:
        if bare_type(step) == "LoadAnnotations":
            step.update(with_seg=True)
    cfg.model.data_preprocessor.update(pad_seg=True)
    cfg.model.roi_head.semantic_head.num_classes = CLASSES["mmseg"]


def read_segments(cfg: Config) -> None:
    """Has training and validation read the shapes' panoptic maps, in place."""
    for split, loader in (("train", cfg.train_dataloader), ("val", cfg.val_dataloader)):
        loader.dataset.update(
            type="swin_mm.ShapesPanopticDataset",
            ann_file=f"annotations/panoptic_{split}.json",
            data_prefix=dict(img=f"{split}/", seg=f"panoptic/{split}/"),
        )
        for step in loader.dataset.pipeline:
            if bare_type(step) == "LoadAnnotations":
                step.type = "LoadPanopticAnnotations"
    cfg.model.data_preprocessor.update(pad_seg=True)
    root = cfg.val_dataloader.dataset.data_root
    cfg.val_evaluator = dict(
        type="CocoPanopticMetric",
        ann_file=f"{root}annotations/panoptic_val.json",
        seg_prefix=f"{root}panoptic/val/",
    )


def take_stock(model: Config, scope: str) -> None:
    """Takes the classes of mmdet or mmseg for those of the same names of ours, in place."""
    for part in walk(model):
        kind = part.get("type")
        if isinstance(kind, str) and kind.startswith("swin_mm."):
            part["type"] = f"{scope}.{bare_type(part)}"


def save_initial_weights(cfg: Config, seed: int, path: Path) -> None:
    """Draws the weights that both sides begin with, from the stock model where there is one."""
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        MMLogger.get_instance("families", log_level="WARNING")  # or each weight has a line
        torch.manual_seed(seed)
        model = revert_sync_batchnorm(MODELS.build(cfg.model))
        model.init_weights()
        # The published 0.02 of the backbone and 0.01 of the heads are for wide layers; here signals
        # would fade from stage to stage, and RetinaNet, without norms, would not learn.
        for part, module in model.named_modules():
            if part.startswith("backbone.") and isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
            if "_convs." in part and isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        partial = path.with_suffix(f".{os.getpid()}")  # a file that is there is whole
        torch.save({"state_dict": model.state_dict(), "meta": {}}, partial)
        partial.replace(path)


def read_scores(folder: Path, evaluator: Config) -> dict[str, float]:
    """The last scores that a run has logged.

    Of a model that finds nothing in any image COCO's metric has none, which is an AP of 0.
    """
    metrics = {
        "CocoMetric": [f"coco/{kind}_mAP" for kind in evaluator.get("metric", [])],
        "CocoPanopticMetric": ["coco_panoptic/PQ"],
        "IoUMetric": ["mIoU"],
    }[bare_type(evaluator)]
    logs = sorted(folder.glob("*/vis_data/scalars.json"))
    lines = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    last: dict = next((line for line in reversed(lines) if METRICS.keys() & line.keys()), {})
    return {metric: last.get(metric, 0.0) for metric in metrics}


def write_table(args: argparse.Namespace) -> None:
    """Writes what was measured between two marks of configs/README.md."""
    rows, commits, devices = [], set(), set()
    for name, family in FAMILIES.items():
        results: dict[str, list] = {side: [] for side in SIDES}
        seeds = []
        for seed in args.seeds:
            files = {side: result_file(name, seed, side, args) for side in family.sides}
            if not all(file.is_file() for file in files.values()):
                continue
            seeds.append(str(seed))
            for side, file in files.items():
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
    """Mean and, of several, standard deviation; a dash where there are none."""
    if not scores:
        return "-"
    spread = f" ({stdev(scores):.1f})" if len(scores) > 1 else ""
    return f"{mean(scores):.1f}{spread}"


if __name__ == "__main__":
    main()
