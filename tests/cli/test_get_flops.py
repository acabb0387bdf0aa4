"""The command that counts."""

import re

import pytest

from swin_mm.cli import get_flops
from swin_mm.configs import ConfigError


def test_table_and_both_ways_to_count(capsys):
    get_flops.main(["mask_rcnn_swin_mini_shapes", "--shape", "64", "96"])
    output = capsys.readouterr().out
    assert "MaskRCNN, one image of 64 x 96" in output
    for part in ("backbone", "neck", "rpn_head", "roi_head.bbox_head", "roi_head.mask_head"):
        assert f"│ {part} " in output
    single, double = map(
        float, re.search(r"([\d.]+) G multiply-adds .* = ([\d.]+) G", output).groups()
    )
    assert double == pytest.approx(2 * single, abs=0.1)
    assert max(map(len, output.splitlines())) <= 100


def test_data_without_a_usual_size():
    with pytest.raises(ConfigError, match="has no usual image size: give --shape H W"):
        get_flops.main(["mask_rcnn_swin_mini_shapes"])


@pytest.mark.parametrize("shape", [["0", "5"], ["5"], ["a", "5"]], ids=str)
def test_shape_that_is_none(shape, capsys):
    with pytest.raises(SystemExit):
        get_flops.main(["mask_rcnn_swin_mini_shapes", "--shape", *shape])
    assert "error: argument --shape" in capsys.readouterr().err
