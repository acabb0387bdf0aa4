"""Masks pasted into images, against mmdet's sampling at the points of a grid."""

import pytest
import torch
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmengine.config import ConfigDict

from swin_mm.heads.ops import paste
from swin_mm.heads.ops.paste import paste_masks

SIZE = (70, 90)  # (H, W)
BOXES = {
    "inside": [10.3, 5.6, 60.1, 40.9],
    "on-pixels": [8.0, 16.0, 24.0, 64.0],
    "whole-image": [0.0, 0.0, 90.0, 70.0],
    "beyond-the-borders": [-20.5, -7.25, 120.0, 99.0],
    "within-a-pixel": [30.2, 30.3, 30.7, 30.8],
}


def paste_by_mmdet(masks, boxes, threshold):
    head = FCNMaskHead(num_convs=0, in_channels=1, num_classes=1, class_agnostic=True)
    return head._predict_by_feat_single(
        masks[:, None],
        boxes.clone(),
        torch.zeros(len(boxes), dtype=torch.long),
        dict(ori_shape=SIZE, scale_factor=(1.0, 1.0)),
        ConfigDict(mask_thr_binary=threshold),
        rescale=True,
        activate_map=True,
    )


@pytest.mark.parametrize("side", [28, 7])
@pytest.mark.parametrize("threshold", [0.5, 0.0, -1, pytest.param(0.5, id="as-on-a-gpu")])
def test_masks_are_mmdets(side, threshold, monkeypatch, request):
    if "as-on-a-gpu" in request.node.callspec.id:
        monkeypatch.setattr(paste, "_paste_in_boxes", paste._paste_in_images)
        monkeypatch.setattr(paste, "CHUNK_PIXELS", 3 * SIZE[0] * SIZE[1] - 1)
    torch.manual_seed(0)
    boxes = torch.tensor([*BOXES.values()])
    masks = torch.rand(len(boxes), side, side)
    found = paste_masks(masks, boxes, SIZE, threshold)
    expected = paste_by_mmdet(masks, boxes, threshold)
    assert found.dtype == expected.dtype and found.shape == expected.shape
    if threshold < 0:  # cut to whole numbers, of which rounding may give the next
        assert ((found.int() - expected.int()).abs() <= 1).all()
    else:
        assert torch.equal(found, expected)
        assert found[0].any() and not found[0].all()


@pytest.mark.parametrize(
    "box",
    [[200.0, 10.0, 240.0, 30.0], [40.3, 10.0, 40.3, 30.0], [90.0, 70.0, 90.0, 70.0]],
    ids=["outside", "without-width", "without-area"],
)
@pytest.mark.parametrize("function", [paste._paste_in_boxes, paste._paste_in_images])
def test_a_box_without_pixels_has_none(function, box):
    found = function(torch.ones(2, 28, 28), torch.tensor([box, BOXES["inside"]]), SIZE, 0.5)
    assert found.flatten(1).any(1).tolist() == [False, True]


def test_half_covered_pixels_by_hand():
    """One cell over the columns 2 to 4: its value falls to half at half a cell from the centre."""
    mask, box = torch.ones(1, 1, 1), torch.tensor([[2.0, 0.0, 4.0, 1.0]])
    assert paste_masks(mask, box, (1, 6), 0.5)[0, 0].int().tolist() == [0, 0, 1, 1, 0, 0]
    assert paste_masks(mask, box, (1, 6), 0.8)[0, 0].int().tolist() == [0, 0, 0, 0, 0, 0]
    assert paste_masks(mask, box, (1, 6), -1)[0, 0].int().tolist() == [0, 63, 191, 191, 63, 0]
