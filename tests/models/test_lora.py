"""LoRA: what is trained, that it takes effect everywhere, and that merged weights do the same."""

import copy

import pytest
import torch
from torch import nn

from swin_mm import SwinTransformer, SwinTransformerV2
from swin_mm.checkpoint import CheckpointError, find, load_checkpoint_file
from swin_mm.checkpoint.lora import merge_lora
from swin_mm.models import lora

SMALL = dict(embed_dims=24, depths=(2, 2), num_heads=(2, 4), drop_path_rate=0.0)
SMALL |= dict(strides=(4, 2), out_indices=(0, 1), window_size=4)
LAYERS = [f"attn.{n}" for n in ("qkv", "proj")] + [f"mlp.{n}" for n in ("fc1", "fc2")]

both = pytest.mark.parametrize("kind", [SwinTransformer, SwinTransformerV2])


def build(kind, seed=0, **arguments):
    """A backbone with every parameter off its initial value, updates included."""
    pytest.importorskip("peft")
    torch.manual_seed(seed)
    model = kind(**(SMALL | arguments))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def image():
    return torch.randn(2, 3, 37, 50, generator=torch.Generator().manual_seed(3))


def close(found, expected):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@both
def test_begins_as_the_backbone_it_adapts(kind):
    plain = build(kind)
    adapted = kind(**SMALL, lora=dict(r=3)).eval()
    adapted.load_state_dict(plain.state_dict(), strict=True)
    close(adapted(image()), plain(image()))
    assert "loaded" in str(adapted.load_report)


@both
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_reset_parameters_begin_as_the_backbone_they_adapt(kind, device):
    """Also where scale and updates had no values."""
    plain, lora = build(kind), dict(r=3, alpha=6)
    with torch.device(device):
        adapted = kind(**SMALL, lora=lora).eval()
    adapted.to_empty(device="cpu")
    for tensor in (*adapted.parameters(), *adapted.buffers()):
        tensor.data.fill_(7)
    adapted.reset_parameters()
    wanted = kind(**SMALL, lora=lora).state_dict()
    for name, value in adapted.state_dict().items():
        if "lora_B" in name or name == "lora_scale":
            assert torch.equal(value, wanted[name]), name
        elif "lora_A" in name:
            assert value.std() == pytest.approx(wanted[name].std().item(), rel=0.3), name
    adapted.load_state_dict(plain.state_dict(), strict=True)
    close(adapted(image()), plain(image()))


@both
def test_trains_the_updates_of_every_linear_layer_and_nothing_else(kind):
    model = build(kind, lora=dict(r=3))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {
        f"layers.{stage}.blocks.{block}.{layer}.lora_{part}.default.weight"
        for stage in (0, 1)
        for block in (0, 1)
        for layer in LAYERS
        for part in "AB"
    }
    sum(m.square().sum() for m in model(image())).backward()
    for name, parameter in model.named_parameters():
        if name in trained:
            assert parameter.grad.abs().max() > 0, name
        else:
            assert parameter.grad is None


@both
@pytest.mark.parametrize("layer", LAYERS)
def test_every_update_has_the_effect_of_a_changed_weight(kind, layer):
    """Against the formula: the same backbone without LoRA, with W + alpha / r * B A."""
    model = build(kind, lora=dict(r=3, alpha=6))
    plain = kind(**SMALL).eval()
    state = {key: value for key, value in model.state_dict().items() if "lora_" not in key}
    for parameter in (p for n, p in model.named_parameters() if "lora_B" in n):
        if not any(parameter is q for n, q in model.named_parameters() if f"{layer}.lora_B" in n):
            parameter.data.zero_()
    for name, module in model.named_modules():
        if name.endswith(layer):
            product = module.lora_B["default"].weight @ module.lora_A["default"].weight
            state[f"{name}.weight"] = state[f"{name}.weight"] + 2 * product.detach()
    plain.load_state_dict(state, strict=True)
    close(model(image()), plain(image()))
    unchanged = kind(**SMALL).eval()
    unchanged.load_state_dict({k: v for k, v in model.state_dict().items() if "lora_" not in k})
    assert not torch.allclose(unchanged(image())[1], plain(image())[1], atol=1e-3)


@both
def test_a_checkpoint_loads_merged_into_the_plain_backbone(kind, tmp_path):
    model = build(kind, lora=dict(r=2, alpha=8))
    torch.save({"state_dict": model.state_dict()}, tmp_path / "lora.pth")
    plain = build(kind, seed=1)
    plain.load_state_dict(load_checkpoint_file(tmp_path / "lora.pth")["state_dict"], strict=True)
    close(plain(image()), model(image()))
    # What `swin-mm convert` writes.
    exported = build(kind, seed=2)
    exported.load_state_dict(find.find_backbone({"state_dict": model.state_dict()}).state)
    close(exported(image()), model(image()))


@both
def test_merges_within_a_detector_and_leaves_the_rest(kind):
    detector = nn.Sequential(build(kind, lora=dict(r=2)), nn.Linear(2, 2))
    merged = merge_lora(detector.state_dict())
    plain = nn.Sequential(build(kind, seed=1), nn.Linear(2, 2))
    assert merged.keys() == plain.state_dict().keys()
    plain.load_state_dict(merged, strict=True)
    close(plain[0](image()), detector[0](image()))
    assert torch.equal(plain[1].weight, detector[1].weight)


@both
def test_checkpoints_with_updates_resume(kind):
    model, resumed = build(kind, lora=dict(r=2)), build(kind, seed=1, lora=dict(r=2))
    resumed.load_state_dict(model.state_dict(), strict=True)
    for (name, one), other in zip(model.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other), name
    clone = copy.deepcopy(resumed)  # as for averages of weights
    clone.load_state_dict(model.state_dict(), strict=True)


def test_updates_of_frozen_stages_are_frozen():
    model = build(SwinTransformer, lora=dict(r=2), frozen_stages=1)
    trained = {name.split(".")[1] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"1"}


def test_windows_are_fitted_as_without_lora():
    model = SwinTransformer(**(SMALL | dict(window_size=7)), lora=dict(r=2))
    model.load_state_dict(build(SwinTransformer).state_dict(), strict=True)
    assert model.load_report.resized


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (dict(r=3), "of other layers or another rank .*lora_A.default.weight, 32 in all"),
        (dict(r=2, target_modules=r".*\.qkv"), r"other layers .*mlp.fc1.lora_A.*, 12 in all"),
        (dict(r=2, alpha=7), r"have the scale 1.0, alpha / r of the model's is 3.5"),
    ],
    ids=["rank", "layers", "scale"],
)
def test_other_updates_are_refused(other, message):
    state = build(SwinTransformer, lora=dict(r=2)).state_dict()
    if "target_modules" in other:
        message = message.replace("mlp.fc1", "attn.proj").replace("12", "24")
    with pytest.raises(CheckpointError, match=message):
        build(SwinTransformer, lora=other).load_state_dict(state)


@pytest.mark.parametrize(
    "absent", ["lora_scale", "layers.0.blocks.1.mlp.fc1.lora_A.default.weight"]
)
def test_incomplete_updates_are_refused(absent):
    state = build(SwinTransformer, lora=dict(r=2)).state_dict()
    del state[absent]
    with pytest.raises(CheckpointError, match="the LoRA update of layers.* is incomplete"):
        merge_lora(state)


def test_misfitting_updates_are_refused():
    state = build(SwinTransformer, lora=dict(r=2)).state_dict()
    state["layers.0.blocks.1.mlp.fc1.lora_A.default.weight"] = torch.zeros(2, 5)
    with pytest.raises(CheckpointError, match="layers.0.blocks.1.mlp.fc1 does not fit its weight"):
        merge_lora(state)


def test_half_precision_weights_are_merged_in_float32():
    weight = torch.full((1, 1), 1.0, dtype=torch.bfloat16)
    state = {"a.weight": weight, "lora_scale": torch.tensor(1.0)}
    part = torch.full((1, 1), 0.25)
    state |= {f"a.lora_{name}.default.weight": part for name in "AB"}
    merged = merge_lora(state)["a.weight"]
    assert merged.dtype == torch.bfloat16 and float(merged) == 1.0625
    assert float(weight) == 1.0


def test_rank_must_be_positive():
    with pytest.raises(ValueError, match="r must be 1 or more, got 0"):
        SwinTransformer(**SMALL, lora=dict(r=0))


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(lora, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs the package peft: pip install 'swin-mm\[lora\]'"):
        SwinTransformer(**SMALL, lora=dict(r=2))
