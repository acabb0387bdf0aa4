"""What a result says: ratios, shares, JSON, table, notes and picture."""

import json
from io import StringIO

import pytest
from matplotlib.image import imread
from rich.console import Console
from small_work import small_work

from swin_mm.benchmark.floor import DeviceSpeed
from swin_mm.benchmark.plot import draw
from swin_mm.benchmark.report import (
    MIB,
    Case,
    Row,
    draw_notes,
    draw_table,
    milliseconds,
    ratio,
    write_json,
)

SPEED = DeviceSpeed(bandwidth=2e9, rate=3e12)


@pytest.fixture
def case():
    rows = [
        Row("swin_mm", "eager", [0.004, 0.002, 0.003], 27_500_000, 512 * MIB),
        Row("swin_mm", "compile", [0.002, 0.001, 0.0015], 27_500_000, 256 * MIB),
        Row("mmdet", "eager", [0.012, 0.008, 0.009], 27_500_000, 2048 * MIB, differs="is stock"),
        Row("timm", "eager", error="not installed"),
    ]
    return Case("the case", small_work(batch=6), rows, floor=0.0006)


def text_of(renderable, width=120):
    console = Console(width=width, file=StringIO(), record=True)
    console.print(renderable, soft_wrap=True)
    return console.export_text()


def test_ratios_and_shares(case):
    eager, compiled, stock, missing = case.rows
    assert case.ours is eager
    assert case.fastest is compiled
    assert ratio(stock, case.ours) == 3.0  # of 3, 4 and 3
    assert ratio(eager, case.fastest) == 2.0
    assert ratio(missing, case.ours) is None
    assert case.floor_share(eager) == pytest.approx(0.2)
    assert case.floor_share(missing) is None


def test_ours_is_missing_where_it_failed(case):
    for row in case.rows[:2]:
        row.seconds, row.error = [], "broken"
    assert case.ours is None
    assert case.fastest.library == "mmdet"
    assert ratio(case.rows[2], case.ours) is None
    assert "mmdet" in text_of(draw_table(case))


def test_table(case):
    lines = {
        tuple(line.split()[:2]): line.split() for line in text_of(draw_table(case)).splitlines()
    }
    assert lines["library", "run"][2] == "ms"
    found = lines["mmdet", "eager"][2:]
    assert found == ["9.00", "8.40", "to", "10.8", "3.00x", "6.00x", "7%", "2,048", "27.5M"]
    assert ("timm", "eager") not in lines
    assert max(map(len, text_of(draw_table(case)).splitlines())) <= 100


def test_table_without_memory_and_floor(case):
    case.floor = None
    for row in case.rows:
        row.peak_bytes = None
    text = text_of(draw_table(case))
    assert "MiB" not in text
    assert "floor" not in text
    assert "27.5M" in text


def test_notes(case):
    text = text_of(draw_notes([case], SPEED))
    assert "timm eager: not installed\n" in text
    assert "mmdet differs: is stock." in text
    assert "copy 2 GB/s, fp32 matrix product 3.00 TFLOP/s" in text
    assert "Memory of a CPU is what the process grows by" in text


def test_json(case, tmp_path):
    path = tmp_path / "new" / "result.json"
    machine = {"device": "a device", "commit": "abc"}
    write_json(path, [case], SPEED, machine, "swin-mm benchmark", "2030-01-01", None)
    content = json.loads(path.read_text())
    assert (content["device"], content["commit"]) == ("a device", "abc")
    assert content["command"] == "swin-mm benchmark"
    assert content["measured_bandwidth_gb_s"] == 2.0
    (found,) = content["cases"]
    assert found["floor_ms"] == pytest.approx(0.6)
    assert found["work"]["sizes"] == [[128, 256]]
    first, _, stock, missing = found["rows"]
    assert first["median_ms"] == pytest.approx(3.0)
    assert first["images_per_second"] == pytest.approx(2000)
    assert first["peak_mib"] == 512
    assert first["samples_ms"] == pytest.approx([4, 2, 3])
    assert stock["times_ours"] == 3.0
    assert stock["times_fastest"] == 6.0
    assert missing == {
        "library": "timm",
        "run": "eager",
        "parameters": None,
        "error": "not installed",
    }


@pytest.mark.parametrize("sweep", [None, "side", "batch"])
def test_picture(case, tmp_path, sweep):
    other = Case("other", case.work, case.rows, 0.0007, value=512)
    case.value = 256
    path = tmp_path / "new" / "result.png"
    assert draw([case, other], sweep, "a device", path)
    height, width = imread(path).shape[:2]
    assert min(height, width) > 300


def test_no_picture_of_nothing(case, tmp_path):
    case.rows = case.rows[3:]
    assert not draw([case], None, "a device", tmp_path / "result.png")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0012345, "1.23"), (0.012345, "12.3"), (1.2345, "1234")]
)
def test_milliseconds(seconds, text):
    assert milliseconds(seconds) == text
