"""Anchors of all levels: mmdet's, made once for each size of feature maps."""

import copy

import pytest
import torch
from mmdet.models.task_modules import AnchorGenerator
from mmdet.models.task_modules.prior_generators import anchor_inside_flags

from swin_mm.heads.dense.anchors import make_anchors

SIZES = ((13, 18), (7, 9), (4, 5))
CPU = torch.device("cpu")


@pytest.fixture
def generator():
    strides = [4, (8, 10), 16]  # of one level, x and y differ
    return AnchorGenerator(strides=strides, ratios=[0.5, 1.0], scales=[3, 4])


def test_anchors_are_mmdets(generator):
    found = make_anchors(copy.deepcopy(generator), SIZES, torch.float32, CPU)
    wanted = generator.grid_priors(SIZES, device="cpu")
    assert torch.equal(found.boxes, torch.cat(wanted))
    assert found.sizes == [len(level) for level in wanted] == [936, 252, 80]
    assert torch.equal(found.levels.bincount(), torch.tensor(found.sizes))
    assert (found.levels.diff() >= 0).all()


@pytest.mark.parametrize("border", [-1, 0, 6])
def test_those_that_may_learn_are_mmdets(generator, border):
    pad_shapes, img_shapes = [(52, 72), (32, 41), (48, 16)], [(50, 70), (31, 37), (47, 16)]
    found = make_anchors(generator, SIZES, torch.float32, CPU)
    turned = [torch.tensor(shapes).flip(1) for shapes in (pad_shapes, img_shapes)]
    usable = found.find_usable(*turned, border)
    for image, (pad_shape, img_shape) in enumerate(zip(pad_shapes, img_shapes, strict=True)):
        valid = torch.cat(generator.valid_flags(SIZES, pad_shape, device="cpu"))
        wanted = anchor_inside_flags(found.boxes, valid, img_shape, border)
        assert torch.equal(usable[image], wanted)
        assert 0 < wanted.sum() < len(wanted) or (image == 0 and border == -1)


def test_are_made_once_for_each_generator_size_and_dtype(generator):
    with torch.inference_mode():
        first = make_anchors(generator, SIZES, torch.float32, CPU)
    assert not first.boxes.is_inference()  # else they could not be trained with
    assert make_anchors(generator, SIZES, torch.float32, CPU) is first
    assert make_anchors(generator, SIZES, torch.float64, CPU).boxes.dtype == torch.float64
    assert make_anchors(generator, ((2, 3), (1, 2), (1, 1)), torch.float32, CPU).sizes == [24, 8, 4]
    assert make_anchors(copy.deepcopy(generator), SIZES, torch.float32, CPU) is not first
    assert make_anchors(generator, SIZES, torch.float32, CPU) is first


def test_of_a_generator_built_without_memory(generator):
    with torch.device("meta"):
        empty = AnchorGenerator(strides=[4, 8], ratios=[0.5, 1.0, 2.0], scales=[8])
    real = AnchorGenerator(strides=[4, 8], ratios=[0.5, 1.0, 2.0], scales=[8])
    sizes = ((3, 5), (2, 3))
    found, wanted = (make_anchors(g, sizes, torch.float32, CPU) for g in (empty, real))
    assert torch.equal(found.boxes, wanted.boxes)
