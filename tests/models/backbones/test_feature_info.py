"""`feature_info` against timm's `features_only` models and against the maps themselves."""

import pickle

import pytest
import timm
import torch

from swin_mm import SwinTransformer, SwinTransformerV2

TIMM = {
    SwinTransformer: "swin_tiny_patch4_window7_224",
    SwinTransformerV2: "swinv2_tiny_window8_256",
}


@pytest.mark.parametrize("out_indices", [(0, 1, 2, 3), (1, 3), (2,)], ids=str)
@pytest.mark.parametrize("kind", TIMM, ids=lambda kind: kind.__name__)
def test_as_timm_s(kind, out_indices):
    with torch.device("meta"):
        theirs = timm.create_model(TIMM[kind], features_only=True, out_indices=out_indices)
        ours = kind(arch="tiny", out_indices=out_indices).feature_info
    theirs = theirs.feature_info
    assert ours.channels() == theirs.channels()
    assert ours.reduction() == theirs.reduction()
    assert ours.module_name() == theirs.module_name()
    assert ours.get_dicts() == theirs.get_dicts()
    assert ours.get_dicts(["num_chs"]) == theirs.get_dicts(["num_chs"])
    last = out_indices[-1]
    assert ours.channels(last) == theirs.channels(last)
    assert ours.reduction([0, last]) == theirs.reduction([0, last])
    assert ours[last] == theirs[last]
    assert pickle.loads(pickle.dumps(ours)).out_indices == out_indices


def test_rectangular_patches_and_other_strides():
    backbone = SwinTransformer(
        embed_dims=8,
        depths=(1, 1, 1),
        num_heads=(1, 1, 1),
        patch_size=(2, 4),
        strides=((2, 4), 2, 3),
        out_indices=(0, 2),
    )
    info = backbone.feature_info
    assert info.reduction() == [(2, 4), (12, 24)]
    maps = backbone(torch.zeros(1, 3, 48, 96))
    assert [tuple(map.shape[1:]) for map in maps] == [(8, 24, 24), (32, 4, 4)]
    assert info.channels() == [8, 32]
