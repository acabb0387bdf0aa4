"""The result of a benchmark as JSON has it, and how it looks on a terminal.

A result is a dict with the machine, the command and a list of `cases`. A case has a `title`, the
`work`, the `value` of a sweep and `rows`; a row is one candidate, with either its times or an
`error`. Files of earlier versions have the same keys.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from swin_mm.benchmark.measure import paired_ratio, quantiles
from swin_mm.console import make_table

OURS = "swin_mm"
MIB = 2**20

TIME_NOTE = (
    "Times are of one step: the median over rounds, with the quantiles 20 and 80 %. Ratios are "
    "medians of the ratios within rounds; more than 1 is slower."
)
CPU_MEMORY_NOTE = "Memory on a CPU is the growth of the process during a step, and what it keeps."


def make_case(
    title: str,
    work: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Derives medians, ratios and rates.

    `rows` are candidates with `library` and `run`, and either `error`, or `seconds` of each round,
    `parameters`, `peak_bytes` and `differs`.
    """
    timed = [row for row in rows if "error" not in row]
    ours = next((row for row in timed if row["library"] == OURS), None)
    fastest = min(timed, key=lambda row: quantiles(row["seconds"])[1], default=None)
    found = []
    for row in rows:
        values = {key: row.get(key) for key in ("library", "run", "parameters")}
        if "error" in row:
            found.append({**values, "error": row["error"]})
            continue
        seconds, peak = row["seconds"], row.get("peak_bytes")
        low, median, high = quantiles(seconds)
        values |= {"median_ms": median * 1e3, "low_ms": low * 1e3, "high_ms": high * 1e3}
        values["images_per_second"] = work["batch"] / median
        values["peak_mib"] = None if peak is None else peak / MIB
        values["times_ours"] = paired_ratio(seconds, ours["seconds"]) if ours else None
        values["times_fastest"] = paired_ratio(seconds, fastest["seconds"]) if fastest else None
        values["differs"] = row.get("differs") or ""
        values["samples_ms"] = [value * 1e3 for value in seconds]
        found.append(values)
    return {"title": title, "value": None, "work": dict(work), "rows": found}


def timed_rows(case: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows that have a time."""
    return [row for row in case["rows"] if "error" not in row]


def draw_table(case: Mapping[str, Any]) -> Table:
    """The case for a terminal."""
    rows = timed_rows(case)
    optional = [
        ("images/s", "images_per_second", "{:.3g}"),
        ("MiB", "peak_mib", "{:,.0f}"),
        ("params", "parameters", "{:,}"),
    ]
    optional = [item for item in optional if any(row.get(item[1]) for row in rows)]
    cells = []
    for row in rows:
        ratios = (row["times_ours"], row["times_fastest"])
        texts = [
            row["library"],
            row["run"],
            milliseconds(row["median_ms"]),
            f"{milliseconds(row['low_ms'])} to {milliseconds(row['high_ms'])}",
            *("" if ratio is None else f"{ratio:.2f}x" for ratio in ratios),
            *("" if row.get(k) is None else form.format(row[k]) for _, k, form in optional),
        ]
        style = "bold" if row["library"] == OURS else ""
        cells.append([Text(text, style) for text in texts])
    names = [name for name, _, _ in optional]
    columns = ["library", "run", "ms", "20 to 80 %", "to ours", "to best", *names]
    return make_table(cells, columns, case["title"], numbers=True)


def draw_notes(content: Mapping[str, Any]) -> str:
    """Errors, differences, and what the tables need to be understood."""
    cases = content["cases"]
    lines = [
        f"{case['title']}: {row['library']} {row['run']}: {row['error']}"
        for case in cases
        for row in case["rows"]
        if "error" in row
    ]
    rows = [row for case in cases for row in timed_rows(case)]
    differences = {row["library"]: row["differs"] for row in rows if row["differs"]}
    lines += [f"{library} differs: {text}." for library, text in differences.items()]
    lines.append(TIME_NOTE)
    if cases[0]["work"]["device"] == "cpu" and any(row["peak_mib"] for row in rows):
        lines.append(CPU_MEMORY_NOTE)
    return "\n".join(lines)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a result, and the folder if it does not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def milliseconds(value: float) -> str:
    """Milliseconds with three digits, or all those before the point."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
