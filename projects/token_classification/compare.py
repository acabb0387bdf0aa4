"""Trains plain windows and mixed context on the built-in language, and prints a table of F1.

Runs that have their report are not repeated, so an interrupted comparison goes on.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from projects.token_classification import train
from projects.token_classification.language import TYPES

CONFIGS = {"plain windows": "language_plain", "mixed context": "language"}


def main(argv: Sequence[str] | None = None) -> None:
    """Trains what has no report yet, and prints the table."""
    parser = argparse.ArgumentParser(description="Compare plain windows with mixed context.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N")
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/compare"), metavar="DIR")
    args, options = parser.parse_known_args(argv)
    rows = {}
    for title, name in CONFIGS.items():
        reports = []
        for seed in args.seeds:
            folder = args.work_dir / f"{name}_{seed}"
            if not (folder / "report.json").is_file():
                config = str(train.DEFAULT_CONFIG.with_name(f"{name}.py"))
                train.main(
                    [config, "--work-dir", str(folder), "--seed", str(seed), *options],
                )
            reports.append(json.loads((folder / "report.json").read_text(encoding="utf-8")))
        rows[title] = [read_scores(report["entities"]) for report in reports]
    print(format_table(rows))


def read_scores(entities: dict) -> dict[str, float]:
    """F1 by distance (mean of its two types) and of all entities, in percent."""
    scores = {
        distance: 100 * mean(entities[kind]["f1-score"] for kind in kinds)
        for distance, kinds in TYPES.items()
    }
    return {**scores, "all": 100 * entities["micro avg"]["f1-score"]}


def format_table(rows: dict[str, list[dict[str, float]]]) -> str:
    """A table in Markdown: means over the seeds, and standard deviations where there are some."""
    columns = [*TYPES, "all"]
    lines = [f"| F1 in percent | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for title, runs in rows.items():
        cells = []
        for column in columns:
            values = [run[column] for run in runs]
            spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{mean(values):.1f}{spread}")
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
