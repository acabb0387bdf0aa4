"""Compares exported quick-start models with the models themselves, image by image.

    python benchmarks/export.py --times  # after tools/quickstart.sh; writes benchmarks/export/

Each validation image is stretched to five sizes, most of them no multiples of windows or of 32,
and run by PyTorch, onnxruntime and OpenVINO in turn, all in float32. Times are medians of whole
calls, from uint8 pixels to boxes and masks or a label map. They are written with `--times` alone:
on a machine that does other work they mean nothing.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

import swin_mm
from swin_mm.benchmark.machine import describe_machine
from swin_mm.export.check import Difference, compare, match, run_eager
from swin_mm.export.plan import make_plan
from swin_mm.export.runtime import ExportedModel, read_image, resize_bilinear

ROOT = Path(__file__).parents[1]
CONFIGS = ("mask_rcnn_swin_mini_shapes", "upernet_swin_mini_shapes")
SIZES = ((160, 144), (97, 141), (200, 260), (400, 300), (513, 700))
FORMATS = {"onnxruntime": "model.onnx", "openvino": "model.xml"}


def main(argv: Sequence[str] | None = None) -> None:
    """Writes `results.json` and `results.md`."""
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    paths = sorted(args.images.glob("*.png"))[: args.count]
    images = [read_image(path) for path in paths]
    if not images:
        raise SystemExit(f"no images in {args.images}: swin-mm shapes easy draws them")
    rows: list[dict[str, Any]] = []
    for name in CONFIGS:
        rows += compare_model(name, images, args)
        print("\n".join(format_table(rows[-len(SIZES) * len(FORMATS) :])), flush=True)
    machine = describe_machine(torch.device("cpu"))
    packages = ("onnx", "onnxruntime", "openvino", "onnxscript")
    machine["versions"] |= {name: metadata.version(name) for name in packages}
    args.out.mkdir(parents=True, exist_ok=True)
    content = dict(machine=machine, images=len(images), rows=rows)
    (args.out / "results.json").write_text(json.dumps(content, indent=1) + "\n")
    (args.out / "results.md").write_text("\n".join(format_table(rows)) + "\n")


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    quickstart = ROOT / "work_dirs" / "quickstart"
    images = ROOT / "data" / "shapes" / "easy" / "val"
    parser.add_argument("--work-dirs", type=Path, default=quickstart, help="(%(default)s)")
    parser.add_argument("--images", type=Path, default=images, help="folder (%(default)s)")
    parser.add_argument("--count", type=int, default=100, help="of images (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of each runtime (%(default)s)")
    parser.add_argument("--times", action="store_true", help="write times too")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "export")
    return parser.parse_args(argv)


def compare_model(
    name: str, images: Sequence[np.ndarray], args: argparse.Namespace
) -> list[dict[str, Any]]:
    """Exports a model in both formats and compares them with it, size by size."""
    checkpoint = (args.work_dirs / name / "last_checkpoint").read_text().strip()
    model = swin_mm.load(name, checkpoint, device="cpu")
    plan = make_plan(model.module, model.cfg.test_dataloader.dataset, "model")
    folder = args.work_dirs / name
    files = {
        runtime: ExportedModel(model.export(folder / file, check=False).path, args.threads)
        for runtime, file in FORMATS.items()
    }
    return [row for size in SIZES for row in compare_at(size, images, model, plan, files, args)]


def compare_at(
    size: tuple[int, int],
    images: Sequence[np.ndarray],
    model: Any,
    plan: Any,
    files: dict[str, ExportedModel],
    args: argparse.Namespace,
) -> list[dict[str, Any]]:
    """Runs all images at one size; a row for each runtime."""
    differences = {name: Difference((1, *size), 0, {}, []) for name in files}
    counts = {name: dict.fromkeys(("matched", "of_model", "of_file"), 0) for name in files}
    times: dict[str, list[float]] = {name: [] for name in ("eager", *files)}
    for number, image in enumerate([images[0], *images]):  # the first run of a size prepares it
        batch = resize_bilinear(image, *size)[None]
        (expected,) = timed(times["eager"], lambda b=batch: run_eager(model.module, plan, b))
        for name, file in files.items():
            outputs = timed(times[name], lambda b=batch, f=file: f.run(b))
            if number:
                outputs = {key: values[0] for key, values in outputs.items()}
                compare(plan, outputs, expected, differences[name])
                count(counts[name], outputs, expected)
    rows = []
    for name in files:
        row = dict(task=plan.task, size=f"{size[0]}x{size[1]}", runtime=name, **counts[name])
        row |= dict(largest=differences[name].values, errors=differences[name].errors)
        if args.times:
            row["ms"] = {key: round(1e3 * median(times[key][1:]), 2) for key in ("eager", name)}
        rows.append(row)
    return rows


def timed(times: list[float], call: Callable[[], Any]) -> Any:
    """Calls and notes the seconds it took."""
    start = time.perf_counter()
    found = call()
    times.append(time.perf_counter() - start)
    return found


def count(counts: dict[str, int], outputs: dict[str, Any], expected: dict[str, Any]) -> None:
    """Counts detections and their pairs, or pixels and equal ones; nothing is let pass."""
    if "label_map" in expected:
        same = int((outputs["label_map"] == expected["label_map"]).sum())
        found = (same, expected["label_map"].size, outputs["label_map"].size)
    else:
        there = outputs["scores"] > 0
        outputs = {name: values[there] for name, values in outputs.items()}
        found = (len(match(outputs, expected)[0]), len(expected["scores"]), int(there.sum()))
    for key, value in zip(counts, found, strict=True):
        counts[key] += value


def format_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The rows as a table in Markdown."""
    lines = [
        "| Task | Size | Runtime | Found by the model / the file / both | Largest differences "
        "| ms, PyTorch / file |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        found = " / ".join(f"{row[key]:,}" for key in ("of_model", "of_file", "matched"))
        largest = ", ".join(f"{name} {value:.1g}" for name, value in row["largest"].items())
        ms = " / ".join(f"{value:.0f}" for value in row["ms"].values()) if "ms" in row else "-"
        cells = (row["task"], row["size"], row["runtime"], found, largest, ms)
        lines.append(f"| {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
