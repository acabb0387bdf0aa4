import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from swin_mm.heads.ops.encode_masks import encode_masks


def reference(masks: torch.Tensor) -> list[dict]:
    pixels = masks.numpy().transpose(1, 2, 0).astype(np.uint8)
    return coco_mask.encode(np.asfortranarray(pixels))


SHAPES = [(3, 1, 1), (2, 5, 1), (2, 1, 7), (40, 3, 4), (4, 60, 33)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("share", [0, 0.03, 0.5, 0.97, 1])
def test_same_code_as_pycocotools(shape, share):
    masks = torch.rand(shape) < share
    assert encode_masks(masks) == reference(masks)
    assert encode_masks(masks.to(torch.uint8)) == reference(masks)


def test_runs_longer_than_one_character_holds_and_negative_differences():
    masks = torch.zeros(3, 300, 400, dtype=torch.bool)
    masks[0, 10:200, 100:390] = True
    masks[1, :, 3:] = True  # columns of ones run on from one to the next
    masks[2, 17, 5] = masks[2, 299, 399] = True
    assert encode_masks(masks) == reference(masks)


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_any_small_masks(seed, height, width, count):
    masks = torch.rand(count, height, width, generator=torch.manual_seed(seed)) < 0.5
    assert encode_masks(masks) == reference(masks)


def test_views_of_other_tensors():
    masks = torch.rand(12, 20, 6) < 0.3
    for view in (masks[::3], masks[:, ::2], masks.transpose(1, 2), masks[:0]):
        expected = reference(view.contiguous()) if len(view) else []
        assert encode_masks(view) == expected


@pytest.mark.parametrize(
    "masks",
    [torch.zeros(4, 4, dtype=torch.bool), torch.zeros(1, 4, 4)],
    ids=["no instances", "floats"],
)
def test_other_tensors_are_refused(masks):
    with pytest.raises(ValueError, match="must be .N, H, W., bool or uint8, got"):
        encode_masks(masks)
