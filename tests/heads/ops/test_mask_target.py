"""Cut-outs of bitmaps against mmdet's."""

import numpy as np
import pytest
import torch
from mmdet.structures.mask import BitmapMasks, mask_target
from mmengine.config import ConfigDict

from swin_mm.heads.roi.mask_head import crop_bitmaps


@pytest.mark.parametrize("dtype", [np.uint8, bool, np.float64])
@pytest.mark.parametrize("is_soft", [False, True])
def test_cut_outs_are_mmdets(is_soft, dtype):
    random = np.random.default_rng(0)
    bitmaps = (random.random((4, 60, 90)).repeat(2, 1).repeat(2, 2)[:, :61, :83] > 0.5).astype(
        dtype
    )
    corners = random.uniform(0, 60, (30, 2))
    boxes = np.hstack([corners, corners + random.exponential(20, (30, 2))]).astype(np.float32)
    boxes = torch.from_numpy(boxes.clip(0, [83, 61] * 2))
    index = torch.from_numpy(random.integers(0, 4, 30))
    cfg = ConfigDict(mask_size=(14, 9), soft_mask_target=is_soft)
    expected = mask_target([boxes], [index], [BitmapMasks(bitmaps, 61, 83)], cfg)
    found = crop_bitmaps(torch.from_numpy(bitmaps), index, boxes, (14, 9), binarize=not is_soft)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
    assert 0.1 < found.mean() < 0.9


def test_half_a_cell_belongs_to_the_object():
    bitmap = torch.zeros(1, 4, 4)
    bitmap[0, :, :1] = 1  # one of the two columns of a cell
    found = crop_bitmaps(bitmap, torch.tensor([0]), torch.tensor([[0.0, 0, 4, 4]]), (2, 2))
    assert found.tolist() == [[[1, 0], [1, 0]]]
