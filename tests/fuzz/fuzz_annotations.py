"""Mutates annotation files and label maps: each loads right or is refused in one line.

    python tests/fuzz/fuzz_annotations.py [--count 5000] [--seed 0] [--only INDEX] [--folder DIR]

Right means: what the check before training lets through is loaded by the data set, has the objects
that the check counted, and scores what the COCO metric or mIoU must be where the annotations
themselves are the predictions. The check before training and check-dataset must agree. Prints a
line of JSON for each input that fails and one with the counts at the end; the status is 1 where one
failed. Inputs run in forks of this process, many in each, with a time limit for each input.
"""

import argparse
import gc
import json
import logging
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from annotation_oracle import (
    SEGMENTATION_CLASSES,
    WrongResult,
    check_labels,
    check_samples,
    check_scores,
)
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS, init_default_scope
from mutate_annotations import CLASSES, IMAGES, make_coco, make_images, mutate
from mutate_label_maps import make_map

import swin_mm
from swin_mm.cli import init_config
from swin_mm.cli.errors import explain_error
from swin_mm.datasets.check import DatasetSummary, check_config, inspect_config

SECONDS = 30  # for one input
GIBIBYTES = 12  # of address space for one process
LONGEST = 2000  # characters in a message


def say(error: BaseException) -> str:
    """The line that a command would print.

    Raises:
        BaseException: The error itself, where a command would print a traceback.
        WrongResult: The line is none.
    """
    line = explain_error(error)
    if line is None:
        raise error
    if "\n" in line or not line.isprintable() or not 10 < len(line) < LONGEST:
        raise WrongResult(f"not a line for a user: {line[:500]!r}")
    return line


def check(cfg: Config) -> tuple[DatasetSummary | None, str | None]:
    """What the check before training finds, and why it refuses.

    Raises:
        WrongResult: check-dataset says something else.
    """
    summary = message = None
    try:
        summary = check_config(cfg)
    except Exception as error:
        message = say(error)
    try:
        faults = inspect_config(cfg).faults
    except Exception as error:
        faults = [say(error)]
    if bool(faults) != (message is not None):
        raise WrongResult(f"train says {message!r}, check-dataset {faults!r}")
    return summary, message


def try_coco(draw: random.Random, folder: Path) -> tuple[str, str]:
    """Tries one annotation file; returns what came of it and what was done to it.

    Raises:
        BaseException: It failed; notes say what was done.
    """
    content, done = mutate(make_coco(draw), draw)
    (folder / "train.json").write_bytes(content)
    cfg = detection_config(draw, folder)
    try:
        if draw.random() < 0.04:
            return try_init(folder), str(done)
        summary, message = check(cfg)
        if summary is None:
            return message, str(done)
        coco = json.loads(content)
        check_samples(cfg, summary, coco)
        check_scores(cfg, coco)
    except BaseException as error:
        error.add_note(f"done: {done}")
        raise
    return "", str(done)


def detection_config(draw: random.Random, folder: Path) -> Config:
    """A config that trains and validates on the one file, with or without masks."""
    with_mask = draw.random() < 0.7
    loading = {"type": draw.choice(["", "swin_mm."]) + "LoadAnnotations", "with_bbox": True}
    pipeline = [{"type": "LoadImageFromFile"}, {**loading, "with_mask": with_mask}]
    if draw.random() < 0.5:
        pipeline += [
            {"type": "Resize", "scale": (64, 48), "keep_ratio": True},
            {"type": "RandomFlip", "prob": 0.5},
        ]
    dataset = {
        "type": "CocoDataset",
        "data_root": f"{folder}/",
        "ann_file": "train.json",
        "data_prefix": {"img": "images/"},
        "metainfo": {"classes": CLASSES},
        "pipeline": [*pipeline, {"type": "PackDetInputs"}],
    }
    evaluator = {
        "type": draw.choice(["", "swin_mm."]) + "CocoMetric",
        "ann_file": f"{folder}/train.json",
        "metric": ["bbox", "segm"] if with_mask else "bbox",
    }
    return Config(
        {
            "default_scope": "mmdet",
            "train_dataloader": {"dataset": dataset},
            "val_dataloader": {"dataset": {**dataset, "test_mode": True}},
            "val_evaluator": evaluator,
        }
    )


def try_init(folder: Path) -> str:
    """Writes a config for the file and loads what it trains on; returns why there is none."""
    out = folder / "own.py"
    try:
        init_config.main(
            ["--coco", str(folder / "train.json"), "--images", str(folder / "images")]
            + ["--out", str(out), "--force", "--preset", "small"]
        )
    except Exception as error:
        return say(error)
    cfg = Config.fromfile(out)
    init_default_scope("mmdet")
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    if not sum(len(dataset[i]["data_samples"].gt_instances) for i in range(len(dataset))):
        raise WrongResult("a config was written and nothing is learned")
    return ""


def try_maps(draw: random.Random, folder: Path) -> tuple[str, str]:
    """Tries a set of label maps, one of them odd; as `try_coco`."""
    (folder / "labels").mkdir(exist_ok=True)
    done = []
    for index in range(IMAGES):
        content, form = make_map(draw, odd=index == 0)
        (folder / "labels" / f"{index}.png").write_bytes(content)
        done.append(form)
    reduced = draw.random() < 0.2
    dataset = {
        "type": "BaseSegDataset",
        "data_root": str(folder),
        "data_prefix": {"img_path": "images", "seg_map_path": "labels"},
        "img_suffix": ".png",
        "metainfo": {"classes": SEGMENTATION_CLASSES},
        "reduce_zero_label": reduced,
        "pipeline": [
            {"type": "LoadImageFromFile"},
            {"type": "LoadAnnotations"},
            {"type": "PackSegInputs"},
        ],
    }
    loader = {"dataset": dataset}
    cfg = Config({"default_scope": "mmseg", "train_dataloader": loader, "val_dataloader": loader})
    try:
        summary, message = check(cfg)
        if summary is None:
            return message, done[0]
        check_labels(cfg, summary)
    except BaseException as error:
        error.add_note(f"done: {done[0]}, reduce_zero_label={reduced}")
        raise
    return "", done[0]


def try_input(index: int, seed: int, folder: Path) -> dict:
    """Tries one input; `outcome` is loaded, refused, wrong or traceback."""
    draw = random.Random(f"{seed}:{index}")
    kind = try_maps if draw.random() < 0.045 else try_coco
    result = {"index": index, "kind": kind.__name__[4:]}
    try:
        message, done = kind(draw, folder)
    except WrongResult as error:
        return {**result, "outcome": "wrong", "detail": [str(error), *error.__notes__]}
    except BaseException:
        return {**result, "outcome": "traceback", "detail": traceback.format_exc()}
    return {**result, "outcome": "refused" if message else "loaded", "detail": [message, done]}


def work(indices: list[int], seed: int, folder: Path, pipe: int, seconds: int) -> None:
    """Tries inputs in a child: writes a line before and after each."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    size = GIBIBYTES * 2**30
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    MMLogger.get_current_instance().setLevel(logging.CRITICAL)
    with os.fdopen(pipe, "w") as out:
        for index in indices:
            print(index, file=out, flush=True)
            signal.alarm(seconds)  # ends the process, C code or not
            result = try_input(index, seed, folder)
            signal.alarm(0)
            print(json.dumps(result), file=out, flush=True)


def run_child(indices: list[int], seed: int, folder: Path, seconds: int) -> Iterator[dict]:
    """Runs inputs in a fork; yields a result for each, up to one that ended the process."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reading)
            work(indices, seed, folder, writing, seconds)
        finally:
            os._exit(0)
    os.close(writing)
    started = None
    with os.fdopen(reading) as lines:
        for line in lines:
            content = json.loads(line)
            started = content if isinstance(content, int) else None
            if isinstance(content, dict):
                yield content
    status = os.waitpid(child, 0)[1]
    if started is not None:
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        outcome = "hang" if number == signal.SIGALRM else "signal"
        yield {"index": started, "kind": "", "outcome": outcome, "detail": number}


def main() -> int:
    parser = argparse.ArgumentParser(description="Mutate annotation files and load them.")
    parser.add_argument("--count", type=int, default=5000, help="inputs (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations (%(default)s)")
    parser.add_argument(
        "--only", type=int, metavar="INDEX", help="one input, with all that it says"
    )
    parser.add_argument("--per-process", type=int, default=50, help="inputs (%(default)s)")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="for an input (%(default)s)")
    parser.add_argument("--folder", type=Path, help="kept afterwards; by default a temporary one")
    args = parser.parse_args()
    folder = (args.folder or Path(tempfile.mkdtemp())).resolve()
    if not (folder / "images").exists():
        make_images(folder / "images")
    if args.only is not None:
        print(json.dumps(result := try_input(args.only, args.seed, folder), indent=1))
        print(result["detail"] if isinstance(result["detail"], str) else "")
        return 0
    for module in ("faster_coco_eval", "mmseg.datasets", "mmseg.evaluation", "swin_mm.init_config"):
        import_module(module)  # once, not in each fork
    gc.freeze()  # mmengine's data sets collect garbage, which would go through all of that
    counts: Counter[str] = Counter(loaded=0, refused=0, wrong=0, traceback=0, signal=0, hang=0)
    left = list(range(args.count))
    while left:
        waiting = len(left)
        for result in run_child(left[: args.per_process], args.seed, folder, args.seconds):
            left.remove(result["index"])
            counts[result["outcome"]] += 1
            if result["outcome"] not in ("loaded", "refused"):
                print(json.dumps(result), flush=True)
        if len(left) == waiting:
            raise RuntimeError("a process ended before its first input")
    print(json.dumps({"swin_mm": swin_mm.__version__, "seed": args.seed, **counts}))
    if args.folder is None:
        shutil.rmtree(folder)
    return int(counts["loaded"] + counts["refused"] < args.count)


if __name__ == "__main__":
    sys.exit(main())
