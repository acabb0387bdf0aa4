"""The module that mmdet gets for panopticapi: colours of ids, and qualities worked by hand."""

import subprocess
import sys
from types import ModuleType

import numpy as np
import panopticapi
import pytest
from mmdet.evaluation.metrics import coco_panoptic_metric
from panopticapi.evaluation import PQStat
from panopticapi.utils import id2rgb, rgb2id

from swin_mm.compat.panopticapi import PATCH

OURS = "panopticapi_shim" in panopticapi.__file__
needs_ours = pytest.mark.skipif(not OURS, reason="panopticapi is installed")
CATEGORIES = {
    3: {"id": 3, "isthing": 1},
    5: {"id": 5, "isthing": 1},
    8: {"id": 8, "isthing": 0},
    9: {"id": 9, "isthing": 0},
}


def make_counts():
    """Two of three cats found, one of them in a second batch, and one cat that is none; grass."""
    first, second = PQStat(), PQStat()
    first[3].iou, first[3].tp, first[3].fn = 0.8, 1, 1
    second[3].iou, second[3].tp, second[3].fp = 0.6, 1, 1
    second[8].iou, second[8].tp = 0.9, 1
    second[5].fp = 1
    first += second
    return first


def test_qualities_are_those_of_the_definition():
    stat = make_counts()
    everything, per_class = stat.pq_average(CATEGORIES, isthing=None)
    cat = {"pq": 1.4 / 3, "sq": 0.7, "rq": 2 / 3}  # 1.4 of overlap over 2 + 1/2 + 1/2
    grass, none = {"pq": 0.9, "sq": 0.9, "rq": 1.0}, {"pq": 0, "sq": 0, "rq": 0}
    for number, expected in {3: cat, 5: none, 8: grass, 9: none}.items():
        assert per_class[number] == pytest.approx(expected)
    assert everything["n"] == 3  # nothing of class 9 is there
    assert everything["pq"] == pytest.approx((1.4 / 3 + 0 + 0.9) / 3)
    things, stuff = (stat.pq_average(CATEGORIES, isthing)[0] for isthing in (True, False))
    assert (things["n"], things["rq"]) == (2, pytest.approx(1 / 3))
    assert (stuff["n"], stuff["sq"]) == (1, pytest.approx(0.9))


@needs_ours
def test_no_class_at_all_has_no_quality():
    assert PQStat().pq_average(CATEGORIES, None)[0] == {"pq": 0, "sq": 0, "rq": 0, "n": 0}


def test_ids_are_colours():
    ids = np.array([[0, 1, 255], [256, 65535, 65536 * 2 + 3]])
    colours = id2rgb(ids)
    assert colours.dtype == np.uint8
    assert colours[1].tolist() == [[0, 1, 0], [255, 255, 0], [3, 0, 2]]
    assert np.array_equal(rgb2id(colours), ids)


def test_a_module_imported_before_gets_it_too():
    early = ModuleType("early")
    early.panopticapi = early.PQStat = early.rgb2id = None
    PATCH.modules["mmdet.evaluation.metrics.coco_panoptic_metric"](early)
    assert early.PQStat is PQStat and early.rgb2id is rgb2id and early.panopticapi is panopticapi
    assert coco_panoptic_metric.PQStat is PQStat


@needs_ours
def test_one_that_is_installed_is_used(tmp_path):
    (tmp_path / "panopticapi").mkdir()
    (tmp_path / "panopticapi" / "__init__.py").write_text("")
    code = (
        "import sys, swin_mm; sys.path.insert(0, sys.argv[1]); import panopticapi\n"
        "from swin_mm.compat.panopticapi import PATCH\n"
        "print(panopticapi.__file__); print(PATCH.explain())\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    file, explained = result.stdout.splitlines()
    assert file.startswith(str(tmp_path)) and explained == "(False, 'panopticapi is installed')"
