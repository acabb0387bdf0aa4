"""Features of boxes from a pyramid, as the CPU pools them, against mmdet's extractor."""

import pytest
import torch
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from torch import Tensor

from swin_mm.heads.ops import roi_align
from swin_mm.heads.roi.extract import extract_features, lay_out

SIDES = (48, 24, 12)


def make_extractor(**layer) -> SingleRoIExtractor:
    layer = dict(type="RoIAlign", output_size=7, sampling_ratio=0) | layer
    return SingleRoIExtractor(layer, out_channels=6, featmap_strides=[4, 8, 16], finest_scale=28)


def make_maps() -> list[Tensor]:
    return [torch.randn(2, 6, side, side, requires_grad=True) for side in SIDES]


def make_rois(count: int) -> Tensor:
    corners = torch.rand(count, 2, 2) * 190
    image = torch.randint(2, (count, 1))
    return torch.cat((image, corners.amin(1), corners.amax(1)), dim=1)


@pytest.mark.parametrize(
    "layer", [{}, dict(aligned=False), dict(sampling_ratio=2)], ids=["plain", "unaligned", "two"]
)
def test_the_cpus_pooling_is_mmdets(layer, monkeypatch):
    maps, rois, extractor = make_maps(), make_rois(40), make_extractor(**layer)
    calls = []
    pool = roi_align.roi_align
    monkeypatch.setattr(
        roi_align, "roi_align", lambda *args: calls.append(len(args[1])) or pool(*args)
    )
    out = extract_features(extractor, lay_out(maps), rois)
    assert sum(calls) == len(rois)
    expected = extractor(maps, rois)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    grad = torch.randn(expected.shape)
    found = torch.autograd.grad(out, maps, grad)
    torch.testing.assert_close(
        found, torch.autograd.grad(expected, maps, grad), rtol=1e-5, atol=1e-5
    )


def test_one_map_is_pooled_as_by_mmdet(monkeypatch):
    level, rois = make_maps()[1], make_rois(40)
    extractor = SingleRoIExtractor(
        dict(type="RoIAlign", output_size=7, sampling_ratio=0), out_channels=6, featmap_strides=[8]
    )
    pool = roi_align.roi_align
    calls = []
    monkeypatch.setattr(
        roi_align, "roi_align", lambda *args: calls.append(len(args[1])) or pool(*args)
    )
    out = extract_features(extractor, lay_out([level]), rois)
    assert calls == [len(rois)]
    torch.testing.assert_close(out, extractor([level], rois), rtol=1e-5, atol=1e-5)
    (grad,) = torch.autograd.grad(extract_features(extractor, [level], rois[:0]).sum(), level)
    assert not grad.any()


def test_boxes_are_not_rounded_to_narrow_maps():
    """A box of bfloat16 has steps of a pixel from 128 on."""
    maps, rois, extractor = make_maps(), make_rois(40), make_extractor()
    narrow = [level.detach().bfloat16() for level in maps]
    out = extract_features(extractor, lay_out(narrow), rois)
    expected = extractor([level.double() for level in narrow], rois.double())
    torch.testing.assert_close(out, expected.bfloat16())  # to one rounding


def test_other_pooling_is_mmcvs():
    maps, rois, extractor = make_maps(), make_rois(9), make_extractor(pool_mode="max")
    out = extract_features(extractor, lay_out(maps), rois)
    torch.testing.assert_close(out, extractor(maps, rois), rtol=0, atol=0)


def test_a_box_that_is_no_number_spoils_no_other():
    maps, rois, extractor = make_maps(), make_rois(9), make_extractor()
    rois[4, 1:] = torch.nan
    rois[5, 3:] = torch.inf
    out = extract_features(extractor, lay_out(maps), rois)
    expected = extractor(maps, rois)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5, equal_nan=True)
