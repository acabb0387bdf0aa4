"""What a result says: ratios, JSON, table, notes and plots; also of files of earlier versions."""

import json
from io import StringIO
from pathlib import Path

import pytest
from matplotlib.image import imread
from rich.console import Console

from swin_mm.benchmark.plot import plot_result
from swin_mm.benchmark.report import (
    MIB,
    draw_notes,
    draw_table,
    make_case,
    milliseconds,
    write_json,
)
from swin_mm.cli import benchmark
from swin_mm.configs import ConfigError

RESULTS = sorted((Path(__file__).parents[2] / "benchmarks").glob("*.json"))


def row(library, run, seconds, peak=None, **others):
    values = dict(library=library, run=run, seconds=seconds, parameters=27_500_000)
    return {**values, "peak_bytes": peak, **others}


@pytest.fixture
def rows():
    return [
        row("swin_mm", "eager", [0.004, 0.002, 0.003], 512 * MIB),
        row("swin_mm", "compile", [0.002, 0.001, 0.0015], 256 * MIB),
        row("mmdet", "eager", [0.012, 0.008, 0.009], 2048 * MIB, differs="is stock"),
        {"library": "timm", "run": "eager", "error": "not installed"},
    ]


@pytest.fixture
def case(rows):
    return make_case("the case", {"batch": 6, "device": "cpu"}, rows)


def text_of(case):
    console = Console(width=120, file=StringIO(), record=True)
    console.print(draw_table(case))
    return console.export_text().replace("│", "")


def result_of(*cases, sweep=None):
    return dict(device="X", sweep=sweep, cases=list(cases))


def test_figures_of_a_row(case):
    eager, compiled, stock, missing = case["rows"]
    assert eager["median_ms"] == pytest.approx(3)
    assert eager["images_per_second"] == pytest.approx(2000)
    assert eager["peak_mib"] == 512
    assert eager["samples_ms"] == pytest.approx([4, 2, 3])
    assert stock["times_ours"] == 3.0  # the median of 3, 4 and 3
    assert stock["times_fastest"] == 6.0
    assert (eager["times_ours"], compiled["times_fastest"]) == (1, 1)
    assert missing == dict(library="timm", run="eager", parameters=None, error="not installed")


def test_no_ratio_to_ours_if_we_failed(rows):
    failed = [{key: r[key] for key in ("library", "run")} | {"error": "x"} for r in rows[:2]]
    case = make_case("the case", {"batch": 1}, [*failed, rows[2]])
    assert case["rows"][2]["times_ours"] is None and case["rows"][2]["times_fastest"] == 1
    assert "mmdet" in text_of(case)


def test_table(case):
    lines = {tuple(line.split()[:2]): line.split() for line in text_of(case).splitlines()}
    assert lines["mmdet", "eager"][2:] == [
        *("9.00", "8.40", "to", "10.8", "3.00x", "6.00x", "667", "2,048", "27,500,000")
    ]
    assert ("timm", "eager") not in lines
    for found in case["rows"][:3]:
        found.update(peak_mib=None)
    assert "MiB" not in text_of(case)


def test_notes(case):
    text = draw_notes(result_of(case))
    assert "the case: timm eager: not installed\n" in text
    assert "mmdet differs: is stock." in text
    assert "Memory on a CPU" in text


@pytest.mark.parametrize("sweep", [None, "side", "batch"])
def test_plot(case, tmp_path, sweep):
    content = result_of(case | {"value": 256}, case | {"value": 512}, sweep=sweep)
    path = tmp_path / "new" / "result.png"
    assert plot_result(content, path)
    assert min(imread(path).shape[:2]) > 300


def test_no_plot_of_nothing(rows, tmp_path):
    case = make_case("the case", {"batch": 1}, rows[3:])
    assert not plot_result(result_of(case), tmp_path / "result.png")


def test_results_of_this_repository_are_plotted(tmp_path, capsys):
    assert len(RESULTS) >= 10
    copies = []
    for path in RESULTS[:1] + [p for p in RESULTS if "growth_batch" in p.name]:
        copies.append(tmp_path / path.name)
        copies[-1].write_text(path.read_text())
    assert benchmark.main(["--plot", *map(str, copies)]) == 0
    assert all(copy.with_suffix(".png").stat().st_size > 0 for copy in copies)
    assert capsys.readouterr().out.count("written: ") == 2


@pytest.mark.parametrize("text", ["{}", "[1]", "no JSON"])
def test_a_file_that_is_no_result_is_an_error(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ConfigError, match="is no result of"):
        benchmark.main(["--plot", str(tmp_path / "a.json")])


def test_json(case, tmp_path):
    path = tmp_path / "new" / "result.json"
    write_json(path, result_of(case))
    assert json.loads(path.read_text()) == result_of(case)


@pytest.mark.parametrize(("value", "text"), [(1.2345, "1.23"), (12.345, "12.3"), (1234.5, "1234")])
def test_milliseconds(value, text):
    assert milliseconds(value) == text
