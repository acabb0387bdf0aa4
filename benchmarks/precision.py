"""Trains the quick start's models in float32 and bfloat16 with several seeds, and writes a table.

    python benchmarks/precision.py [--seeds 0 1 2] [--out DIR] [--cfg-options KEY=VALUE ...]

Each run is a `swin-mm train` and a `swin-mm test` of its own. What has been trained or tested is
not repeated, so that the same command goes on after an interruption.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import mean

ROOT = Path(__file__).parents[1]
METRICS = {
    "mask_rcnn_swin_mini_shapes": {"coco/bbox_mAP": "box AP", "coco/segm_mAP": "mask AP"},
    "upernet_swin_mini_shapes": {"mIoU": "mIoU"},
}
PRECISIONS: dict[str, list[str]] = {"float32": [], "bfloat16": ["--amp", "bfloat16"]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=ROOT / "work_dirs" / "precision")
    parser.add_argument("--cfg-options", nargs="+", default=[], help="further ones of training")
    args = parser.parse_args()
    runs: list[dict] = []
    for seed in args.seeds:
        for config in METRICS:
            for precision in PRECISIONS:
                metrics = take(config, precision, seed, args.out.resolve(), args.cfg_options)
                runs.append(dict(config=config, precision=precision, seed=seed, metrics=metrics))
                content = json.dumps(dict(options=args.cfg_options, runs=runs), indent=1)
                (args.out / "results.json").write_text(content + "\n")
    table = draw_table(runs)
    (args.out / "results.md").write_text(table)
    print(table)


def take(config: str, precision: str, seed: int, out: Path, options: list[str]) -> dict[str, float]:
    """Trains and tests a model, as far as that has not been done, and gives its metrics."""
    folder = out / f"{config}_{precision}_{seed}"
    common = [config, "--work-dir", str(folder)]
    if not (folder / "trained").exists():
        chosen = [f"randomness.seed={seed}", *options]
        run("train", *common, "--resume", *PRECISIONS[precision], "--cfg-options", *chosen)
        (folder / "trained").touch()
    file = folder / "metrics.json"
    if not file.exists():
        run("test", config, (folder / "last_checkpoint").read_text(), *common[1:])
    return json.loads(file.read_text())["metrics"]


def run(command: str, *args: str) -> None:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    call = [sys.executable, str(ROOT / "tools" / f"{command}.py"), *args]
    subprocess.run(call, check=True, env={**os.environ, "PYTHONPATH": path}, cwd=ROOT)


def draw_table(runs: list[dict]) -> str:
    """A row for each metric and precision: the value of each seed, and their mean."""
    seeds = sorted({run["seed"] for run in runs})
    lines = [
        f"| | | {' | '.join(f'seed {seed}' for seed in seeds)} | mean |",
        f"|---|---|{'---|' * (len(seeds) + 1)}",
    ]
    for config, metrics in METRICS.items():
        for key, name in metrics.items():
            scale = 100 if key == "mIoU" else 1
            for precision in PRECISIONS:
                found = {
                    run["seed"]: run["metrics"][key] / scale
                    for run in runs
                    if (run["config"], run["precision"]) == (config, precision)
                }
                values = [found[seed] for seed in seeds]
                cells = [f"{value:.3f}" for value in (*values, mean(values))]
                lines.append(f"| {name} | {precision} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
