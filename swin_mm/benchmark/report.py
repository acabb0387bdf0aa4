"""The result: rows and cases, and how they look on a terminal and in JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from swin_mm.benchmark.floor import DeviceSpeed
from swin_mm.benchmark.measure import Quantiles, paired_ratio, quantiles
from swin_mm.benchmark.work import Work

OURS = "swin_mm"
MIB = 2**20

TIME_NOTE = (
    "Times are of one step, in ms: the median over rounds, and what a fifth of the rounds lay "
    "below and above. Ratios to swin_mm's first row and to the fastest are medians of those "
    "within rounds; more than 1 is slower."
)
FLOOR_NOTE = (
    "Share of the floor: the least time by bytes and operations, over the time taken; see "
    "swin_mm/benchmark/floor.py."
)
CPU_MEMORY_NOTE = "Memory of a CPU is what the process grows by, with all that the libraries take."
CACHE_NOTE = "A CPU that holds the maps in its caches can do with less than this floor."


@dataclass
class Row:
    """What a candidate did.

    Attributes:
        library: Whose model.
        how: Eager, compiled, or by graphs.
        seconds: Of a step, one for each round; empty where it failed.
        parameters: Number of parameters.
        peak_bytes: Most memory of a step; `None` where it was not measured.
        error: Why there is no result.
        differs: What it does otherwise than swin_mm.
    """

    library: str
    how: str
    seconds: list[float] = field(default_factory=list)
    parameters: int | None = None
    peak_bytes: int | None = None
    error: str | None = None
    differs: str = ""

    @property
    def name(self) -> str:
        return f"{self.library} {self.how}"

    @property
    def time(self) -> Quantiles | None:
        """Seconds of a step."""
        return quantiles(self.seconds) if self.seconds else None


@dataclass
class Case:
    """One piece of work, done by all candidates.

    Attributes:
        title: What distinguishes it from others of the run.
        work: The work.
        rows: The candidates.
        floor: Least seconds of a step, where they are counted.
        value: Of the quantity that a sweep changes.
    """

    title: str
    work: Work
    rows: list[Row]
    floor: float | None = None
    value: int | None = None

    @property
    def ours(self) -> Row | None:
        """The first row of swin_mm that has a time."""
        return next((row for row in self.rows if row.library == OURS and row.seconds), None)

    @property
    def fastest(self) -> Row | None:
        """The row of the shortest time."""
        timed = [row for row in self.rows if row.seconds]
        return min(timed, key=lambda row: row.time.median, default=None)

    def floor_share(self, row: Row) -> float | None:
        """Floor over time."""
        return self.floor / row.time.median if self.floor and row.seconds else None

    def to_dict(self) -> dict[str, Any]:
        """The case as JSON has it."""
        return {
            "title": self.title,
            "value": self.value,
            "work": self.work.to_dict(),
            "floor_ms": self.floor and self.floor * 1e3,
            "rows": [self._row_dict(row) for row in self.rows],
        }

    def _row_dict(self, row: Row) -> dict[str, Any]:
        values = {"library": row.library, "run": row.how, "parameters": row.parameters}
        if row.error:
            return {**values, "error": row.error}
        return {
            **values,
            **{f"{name}_ms": value * 1e3 for name, value in row.time._asdict().items()},
            "images_per_second": self.work.batch / row.time.median,
            "peak_mib": None if row.peak_bytes is None else row.peak_bytes / MIB,
            "times_ours": ratio(row, self.ours),
            "times_fastest": ratio(row, self.fastest),
            "floor_share": self.floor_share(row),
            "differs": row.differs,
            "samples_ms": [seconds * 1e3 for seconds in row.seconds],
        }


def ratio(row: Row, other: Row | None) -> float | None:
    """How many times as long a row takes as another, by rounds; `None` where one has no time."""
    if other is None or not row.seconds or not other.seconds:
        return None
    return paired_ratio(row.seconds, other.seconds)


def draw_table(case: Case) -> Table:
    """The case as people read it."""
    shows_floor = case.floor is not None
    shows_memory = any(row.peak_bytes is not None for row in case.rows)
    table = Table(title=case.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("library", no_wrap=True)
    table.add_column("run", no_wrap=True)
    columns = ["ms", "20 to 80 %", "to ours", "to best"]
    columns += ["floor"] * shows_floor + ["MiB"] * shows_memory + ["params"]
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for row in case.rows:
        if row.error:
            continue
        time = row.time
        cells = [
            row.library,
            row.how,
            milliseconds(time.median),
            f"{milliseconds(time.low)} to {milliseconds(time.high)}",
            _times(ratio(row, case.ours)),
            _times(ratio(row, case.fastest)),
        ]
        if shows_floor:
            cells.append(f"{case.floor_share(row):.0%}")
        if shows_memory:
            cells.append(_mebibytes(row.peak_bytes))
        cells.append(f"{row.parameters / 1e6:.1f}M")
        table.add_row(*cells, style="bold" if row.library == OURS else None)
    return table


def draw_notes(cases: Sequence[Case], speed: DeviceSpeed) -> Text:
    """What the tables need to be understood."""
    work = cases[0].work
    lines = [
        f"{case.title}: {row.name}: {row.error}" if len(cases) > 1 else f"{row.name}: {row.error}"
        for case in cases
        for row in case.rows
        if row.error
    ]
    differences = {
        row.library: row.differs
        for case in cases
        for row in case.rows
        if row.differs and row.seconds
    }
    lines += [f"{library} differs: {text}." for library, text in differences.items()]
    lines.append(TIME_NOTE)
    if cases[0].floor is not None:
        lines.append(
            f"{FLOOR_NOTE} Measured here: copy {speed.bandwidth / 1e9:.0f} GB/s, "
            f"{work.dtype} matrix product {speed.rate / 1e12:.2f} TFLOP/s."
        )
        if work.device.type == "cpu":
            lines.append(CACHE_NOTE)
    if work.device.type == "cpu":
        lines.append(CPU_MEMORY_NOTE)
    if work.part == "config":
        lines.append("No floor: operations of a whole model are not counted.")
    return Text("\n".join(lines))


def write_json(
    path: Path,
    cases: Sequence[Case],
    speed: DeviceSpeed,
    machine: Mapping[str, Any],
    command: str,
    date: str,
    sweep: str | None,
) -> None:
    """Writes everything that was measured.

    Args:
        path: The file.
        cases: The results.
        speed: What the device was measured to do.
        machine: Device, versions and commit.
        command: Command line that repeats it.
        date: When it began, as ISO 8601 has it.
        sweep: The quantity that was changed.
    """
    content = {
        "command": command,
        "date": date,
        **machine,
        "measured_bandwidth_gb_s": speed.bandwidth / 1e9,
        "measured_rate_tflop_s": speed.rate / 1e12,
        "sweep": sweep,
        "cases": [case.to_dict() for case in cases],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def milliseconds(seconds: float) -> str:
    """Milliseconds with three digits, or all those before the point."""
    value = seconds * 1e3
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}x"


def _mebibytes(size: int | None) -> str:
    return "" if size is None else f"{size / MIB:,.0f}"
