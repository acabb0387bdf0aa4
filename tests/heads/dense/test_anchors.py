"""Anchors of all levels: mmdet's, made once for each size of feature maps."""

import copy

import pytest
import torch
from mmdet.models.task_modules import AnchorGenerator
from mmdet.models.task_modules.prior_generators import anchor_inside_flags

from swin_mm.heads.dense import anchors
from swin_mm.heads.dense.anchors import AnchorCache

SIZES = [(13, 18), (7, 9), (4, 5)]
CPU = torch.device("cpu")


@pytest.fixture
def generator():
    strides = [4, (8, 10), 16]  # of one level, x and y differ
    return AnchorGenerator(strides=strides, ratios=[0.5, 1.0], scales=[3, 4])


def test_anchors_are_mmdets(generator):
    found = AnchorCache(copy.deepcopy(generator)).get(SIZES, CPU, torch.float32)
    wanted = generator.grid_priors(SIZES, device="cpu")
    assert torch.equal(found.boxes, torch.cat(wanted))
    assert found.sizes == [len(level) for level in wanted] == [936, 252, 80]
    assert torch.equal(found.levels.bincount(), torch.tensor(found.sizes))
    assert (found.levels.diff() >= 0).all()


@pytest.mark.parametrize("border", [-1, 0, 6])
def test_those_that_may_learn_are_mmdets(generator, border):
    pad_shapes, img_shapes = [(52, 72), (32, 41), (48, 16)], [(50, 70), (31, 37), (47, 16)]
    found = AnchorCache(generator).get(SIZES, CPU, torch.float32)
    turned = [torch.tensor(shapes).flip(1) for shapes in (pad_shapes, img_shapes)]
    usable = found.find_usable(*turned, border)
    for image, (pad_shape, img_shape) in enumerate(zip(pad_shapes, img_shapes, strict=True)):
        valid = torch.cat(generator.valid_flags(SIZES, pad_shape, device="cpu"))
        wanted = anchor_inside_flags(found.boxes, valid, img_shape, border)
        assert torch.equal(usable[image], wanted)
        assert 0 < wanted.sum() < len(wanted) or (image == 0 and border == -1)


def test_are_made_once_for_each_size_and_dtype(generator):
    cache = AnchorCache(generator)
    first = cache.get(SIZES, CPU, torch.float32)
    assert cache.get([torch.Size(size) for size in SIZES], CPU, torch.float32) is first
    assert cache.get(SIZES, CPU, torch.float64).boxes.dtype == torch.float64
    assert cache.get([(2, 3), (1, 2), (1, 1)], CPU, torch.float32).sizes == [24, 8, 4]
    assert cache.get(SIZES, CPU, torch.float32) is first


def test_those_used_longest_ago_are_forgotten(generator, monkeypatch):
    monkeypatch.setattr(anchors, "MAX_SETS", 2)
    cache = AnchorCache(generator)
    sizes = [[(side, side)] * 3 for side in (1, 2, 3)]
    first, second = (cache.get(size, CPU, torch.float32) for size in sizes[:2])
    assert cache.get(sizes[0], CPU, torch.float32) is first  # now the last one used
    cache.get(sizes[2], CPU, torch.float32)
    assert cache.get(sizes[0], CPU, torch.float32) is first
    assert cache.get(sizes[1], CPU, torch.float32) is not second
    assert len(cache.sets) == 2


def test_of_a_generator_built_without_memory(generator):
    with torch.device("meta"):
        empty = AnchorGenerator(strides=[4, 8], ratios=[0.5, 1.0, 2.0], scales=[8])
    real = AnchorGenerator(strides=[4, 8], ratios=[0.5, 1.0, 2.0], scales=[8])
    sizes, cpu = [(3, 5), (2, 3)], torch.device("cpu")
    found, wanted = (AnchorCache(g).get(sizes, cpu, torch.float32) for g in (empty, real))
    assert torch.equal(found.boxes, wanted.boxes)
