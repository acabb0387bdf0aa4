"""Weights go to every layout and come back, under any prefix."""

import pytest
import torch
from swin_libraries import CASES, draw_weights

from swin_mm.checkpoint.layouts import LAYOUTS, MMPRETRAIN, recognise
from swin_mm.checkpoint.layouts.layout import Layout


@pytest.mark.parametrize("prefix", ["", "backbone.", "module.backbone."])
@pytest.mark.parametrize(
    ("layout", "version"),
    [pytest.param(one, v, id=f"{one.name}-v{v}") for one in LAYOUTS for v in one.versions],
)
def test_there_and_back_is_the_identity(layout, version, prefix):
    # In V1, mmpretrain's and mmdet's are the same, where there are norms of all outputs.
    outputs = (3,) if layout is MMPRETRAIN else range(4)
    own = draw_weights(CASES[f"small-v{version}"].build(out_indices=outputs)).state_dict()
    written = layout.from_own(own)
    state, unused, unknown = layout.to_own(written)
    assert unused == unknown == []
    assert state.keys() == own.keys() - set(layout.list_lost(own))
    assert all(key.startswith("norm") for key in layout.list_lost(own))
    assert all(torch.equal(value, own[key]) for key, value in state.items())
    whole = {prefix + key: value for key, value in written.items()}
    assert recognise(whole | {"roi_head.weight": torch.zeros(1)}) == (layout, prefix, version, ())
    assert sum(bool(other.find_prefixes(whole)) for other in LAYOUTS) == 1


class Demo(Layout):
    anchor = r"a\.\d\.x"


def test_prefixes_are_found_once_each_and_end_in_a_dot():
    state = dict.fromkeys(["a.1.x", "a.2.x", "net.a.1.x", "net.ema.a.1.x", "a.1.y", "nota.1.x"])
    assert Demo().find_prefixes(state) == {"", "net.", "net.ema."}
    assert Demo().find_prefixes({"b.1.x": 0}) == set()
