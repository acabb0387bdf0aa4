"""mmpretrain's layout, written out by hand from its source: the package itself is not installed.

Patch merging is compared with `nn.Unfold`, on which mmpretrain builds it.
"""

import pytest
import torch
import torch.nn.functional as F
from swin_libraries import CASES, draw_weights
from swin_weights import relative_error

from swin_mm.checkpoint.layouts import MMDET, MMPRETRAIN, recognise

DEPTHS = (2, 2, 2, 1)


def names(version):
    """Lists the parameters of mmpretrain's class, without `backbone.`."""
    keys = [f"patch_embed.{part}" for part in ("projection", "norm")]
    for i, depth in enumerate(DEPTHS):
        for j in range(depth):
            block = f"stages.{i}.blocks.{j}"
            parts = ["norm1", "attn.w_msa.proj", "norm2", "ffn.layers.0.0", "ffn.layers.1"]
            keys += [f"{block}.{part}" for part in parts]
            keys += [f"{block}.norm3"] if version == 2 and j == 1 else []
    keys = [f"{key}.{leaf}" for key in keys for leaf in ("weight", "bias")]
    for i, depth in enumerate(DEPTHS):
        for j in range(depth):
            attention = f"stages.{i}.blocks.{j}.attn.w_msa"
            keys += [f"{attention}.qkv.weight"]
            if version == 1:
                keys += [f"{attention}.qkv.bias", f"{attention}.relative_position_bias_table"]
            else:
                keys += [f"{attention}.{part}" for part in ("q_bias", "v_bias", "logit_scale")]
                keys += [f"{attention}.cpb_mlp.{part}" for part in ("0.weight", "0.bias")]
                keys += [f"{attention}.cpb_mlp.2.weight"]
        merges = i < 3 if version == 1 else i > 0
        parts = ("norm.weight", "norm.bias", "reduction.weight") if merges else ()
        keys += [f"stages.{i}.downsample.{part}" for part in parts]
    return {*keys, "norm3.weight", "norm3.bias"}


def build(version):
    extra = dict(extra_norm_every_n_blocks=2) if version == 2 else {}
    return draw_weights(CASES[f"small-v{version}"].build(out_indices=(3,), **extra))


@pytest.fixture(params=[1, 2], ids=["v1", "v2"])
def version(request):
    return request.param


def test_names_are_mmpretrains(version):
    assert MMPRETRAIN.from_own(build(version).state_dict()).keys() == names(version)


def test_v1_with_norms_of_all_outputs_is_mmdets():
    state = MMPRETRAIN.from_own(CASES["small-v1"].build().state_dict())
    assert recognise(state).layout is MMDET
    for i in range(4):
        del state[f"norm{i}.weight"], state[f"norm{i}.bias"]
    assert recognise(state).layout is MMDET
    # So mmcls named the norm before its second version of the class.
    assert recognise(state | {"norm.weight": torch.zeros(64)}).layout is MMPRETRAIN


def test_merging_equals_unfold(version):
    backbone = build(version)
    source = MMPRETRAIN.from_own(backbone.state_dict())
    merging = backbone.layers[1].downsample
    name = f"stages.{1 if version == 1 else 2}.downsample"
    norm = (source[f"{name}.norm.weight"], source[f"{name}.norm.bias"])
    x = torch.randn(1, 6, 10, 16, generator=torch.Generator().manual_seed(1))
    wanted = F.unfold(x.permute(0, 3, 1, 2), 2, stride=2).transpose(1, 2)
    if version == 1:
        wanted = F.layer_norm(wanted, wanted.shape[-1:], *norm)
    wanted = wanted @ source[f"{name}.reduction.weight"].T
    if version == 2:
        wanted = F.layer_norm(wanted, wanted.shape[-1:], *norm)
    with torch.no_grad():
        found = merging(x)
    assert relative_error(found.flatten(1, 2), wanted) < 1e-5


def test_a_classifier_completes_the_norms_of_a_backbone(version):
    source = MMPRETRAIN.from_own(build(version).state_dict())
    extra = dict(extra_norm_every_n_blocks=2) if version == 2 else {}
    backbone = CASES[f"small-v{version}"].build(**extra)
    backbone.load_state_dict(source, strict=True)
    assert backbone.load_report.initial == ("norm0", "norm1", "norm2")
    assert torch.equal(backbone.norm3.weight, source["norm3.weight"])
    assert (backbone.norm2.weight == 1).all()
