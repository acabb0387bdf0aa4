"""Weights of which something was dropped, renamed or mis-shaped are refused, in every layout."""

import copy
import re

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.runner import load_checkpoint
from swin_weights import SMALL, microsoft_state, randomise

from swin_mm.checkpoint import CheckpointError
from swin_mm.checkpoint.layouts import LAYOUTS, MICROSOFT
from swin_mm.models import SwinTransformer, SwinTransformerV2


def reshape(value):
    return torch.cat([value.flatten(), value.flatten()[:1]])


def rename_within(key):
    return f"{key}_"


def rename_to_another_layout(key):
    if key.startswith("stages."):
        return key.replace("stages.", "layers.", 1)
    return key.replace("layers.", "stages.", 1) if "layers." in key else f"other.{key}"


def rename_to_surplus(key):
    return f"head.{key}"


MUTATIONS = {
    "drop": lambda state, key: state.pop(key),
    "misshape": lambda state, key: state.update({key: reshape(state[key])}),
    "grow": lambda state, key: state.update({key: torch.cat([state[key], state[key][:1]])}),
    "rename": lambda state, key: state.update({rename_within(key): state.pop(key)}),
    "rename-foreign": lambda state, key: state.update(
        {rename_to_another_layout(key): state.pop(key)}
    ),
    "rename-unused": lambda state, key: state.update({rename_to_surplus(key): state.pop(key)}),
    "nest": lambda state, key: state.update({key: {"value": state[key]}}),
    "add": lambda state, key: state.update({f"{key}.more": torch.zeros(1)}),
}

MUTANTS = {1: SwinTransformer(**SMALL), 2: SwinTransformerV2(**SMALL | dict(window_size=8))}


def mutable_state(layout, version):
    """A state dict that loads, in a layout; some have no place for the norms of outputs."""
    if version == 1:
        return layout.from_own(MICROSOFT.to_own(microsoft_state(None)).state)
    return layout.from_own(randomise(copy.deepcopy(MUTANTS[2])).state_dict())


MUTABLE = {
    (layout.name, version): mutable_state(layout, version)
    for layout in LAYOUTS
    for version in layout.versions
}


@pytest.mark.parametrize("prefix", ["", "backbone."])
@pytest.mark.parametrize(("layout", "version"), MUTABLE, ids=str)
def test_unmutated_weights_load(layout, version, prefix):
    state = {prefix + key: value for key, value in MUTABLE[layout, version].items()}
    backbone = copy.deepcopy(MUTANTS[version])
    backbone.load_state_dict(state)
    assert backbone.load_report.loaded >= backbone.load_report.total - 8


@pytest.mark.parametrize("mutation", MUTATIONS)
@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_mutation_is_never_loaded_in_silence(mutation, data):
    layout, version = data.draw(st.sampled_from(list(MUTABLE)), label="layout")
    strict = data.draw(st.booleans(), label="strict")
    prefix = data.draw(st.sampled_from(["", "backbone."]), label="prefix")
    state = {prefix + key: value for key, value in MUTABLE[layout, version].items()}
    key = data.draw(st.sampled_from(sorted(state)), label="key")
    MUTATIONS[mutation](state, key)
    mutant = MUTANTS[version]
    before = {name: value.clone() for name, value in mutant.state_dict().items()}
    with pytest.raises(CheckpointError):
        mutant.load_state_dict(state, strict=strict)
    assert all(torch.equal(before[name], value) for name, value in mutant.state_dict().items())


@pytest.mark.parametrize(("layout", "version"), MUTABLE, ids=str)
def test_a_mutation_of_any_kind_of_parameter_is_refused(layout, version):
    """Each kind once, where the random test takes some: dropped, and of another shape."""
    whole = MUTABLE[layout, version]
    kinds = {re.sub(r"\d+", "", key): key for key in whole}
    for key in kinds.values():
        for name in ("drop", "grow"):
            state = dict(whole)
            MUTATIONS[name](state, key)
            with pytest.raises(CheckpointError):
                MUTANTS[version].load_state_dict(state, strict=False)


@pytest.mark.parametrize(("layout", "version"), MUTABLE, ids=str)
def test_another_version_is_one_error_that_names_both(layout, version, tmp_path):
    path = str(tmp_path / "weights.pth")
    torch.save({"state_dict": MUTABLE[layout, version]}, path)
    other = 3 - version
    with pytest.raises(CheckpointError) as raised:
        load_checkpoint(MUTANTS[other], path)
    message = str(raised.value)
    assert message.startswith(
        f"cannot load {path} into backbone: it holds a Swin V{version} in the "
    )
    assert f"in the {layout} layout" in message or layout == "mmpretrain"  # V1 of both is the same
    assert f"the model is a Swin V{other}" in message
    assert "\n" not in message
