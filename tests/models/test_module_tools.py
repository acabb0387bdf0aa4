"""PyTorch's tools for modules on the backbones: hooks, pruning, parametrisation, quantisation,
tracing, and construction without memory.

What they do to a layer must show as if the layer were called, on whatever path a block runs.
"""

import copy
import pickle

import pytest
import torch
from mmdet.models.backbones import SwinTransformer as MMDetSwin
from swin_weights import SMALL as SWIN
from swin_weights import microsoft_state
from torch import nn
from torch.nn.utils import parametrizations, prune

from swin_mm import SwinTransformer, SwinTransformerV2
from swin_mm.ops.window import relative_position_index

SMALL = dict(embed_dims=24, depths=(2, 2), num_heads=(1, 2), strides=(4, 2), out_indices=(0, 1))
KINDS = {
    "v1": (SwinTransformer, {}),
    "v1-context": (SwinTransformer, dict(context_scales=("window", 2, "global"))),
    "v2": (SwinTransformerV2, dict(window_size=8)),
}
SIZE = (75, 93)  # in both stages with padding
BLOCK = "layers.0.blocks.1"  # shifted


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def build(kind, **more):
    """A backbone of which no parameter is at its initial value."""
    cls, arguments = KINDS[kind]
    torch.manual_seed(0)
    model = cls(**{**SMALL, "drop_path_rate": 0.0, **arguments, **more})
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def run(model, size=SIZE, grad=False):
    image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.set_grad_enabled(grad):
        return model(image)


def assert_same(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def double(module, *names):
    for name in names:
        getattr(module, name).data.mul_(2)


# What doubles the output of a module, as seen in the module's name: the parameters to double.
DOUBLED = {
    "norm1": [("norm1", "weight", "bias")],
    "attn.qkv": [("attn.qkv", "weight", "bias")],
    "attn.proj": [("attn.proj", "weight", "bias")],
    "attn.proj_drop": [("attn.proj", "weight", "bias")],
    "attn": [("attn.proj", "weight", "bias")],
    "norm2": [("norm2", "weight", "bias")],
    "mlp.fc1": [("mlp.fc1", "weight", "bias")],
    "mlp.act": [("mlp.fc2", "weight")],
    "mlp.fc2": [("mlp.fc2", "weight", "bias")],
    "mlp": [("mlp.fc2", "weight", "bias")],
}
DOUBLED_V2 = {
    "attn.qkv": [("attn.qkv", "weight")],
    "attn.cpb_mlp": [("attn.cpb_mlp.2", "weight")],
    "attn.cpb_mlp.0": [("attn.cpb_mlp.0", "weight", "bias")],
    "attn.cpb_mlp.1": [("attn.cpb_mlp.2", "weight")],
    "attn.cpb_mlp.2": [("attn.cpb_mlp.2", "weight")],
}
HOOKED = [
    *(("v1", name, change) for name, change in DOUBLED.items()),
    *(("v2", name, change) for name, change in {**DOUBLED, **DOUBLED_V2}.items()),
]


@pytest.mark.parametrize("how", ["hook", "forward", "global hook"])
@pytest.mark.parametrize("kind, name, change", HOOKED, ids=lambda value: str(value)[:20])
def test_what_changes_an_output_has_its_effect(kind, name, change, how):
    """Twice a layer's output is the output of twice its weights."""
    doubled, model = build(kind), build(kind)
    for owner, *parameters in change:
        double(doubled.get_submodule(f"{BLOCK}.{owner}"), *parameters)
    module, handle = model.get_submodule(f"{BLOCK}.{name}"), None
    if how == "hook":
        module.register_forward_hook(lambda module, given, out: 2 * out)
    elif how == "forward":  # as libraries that move weights about set it
        forward = module.forward
        module.forward = lambda *given, **options: 2 * forward(*given, **options)
    else:
        handle = nn.modules.module.register_module_forward_hook(
            lambda called, given, out: 2 * out if called is module else None
        )
    try:
        found = run(model)
    finally:
        if handle is not None:
            handle.remove()
    assert_same(found, run(doubled))


@pytest.mark.parametrize("name", ["attn", "mlp"])
def test_a_hook_sees_what_a_branch_takes_and_gives(name):
    model, seen = build("v1"), {}
    block = model.get_submodule(BLOCK)
    norm = {"attn": block.norm1, "mlp": block.norm2}[name]
    block.register_forward_hook(lambda module, given, out: seen.update(block=out))
    getattr(block, name).register_forward_hook(
        lambda module, given, out: seen.update(given=given, out=out)
    )
    norm.register_forward_hook(lambda module, given, out: seen.update(stream=given[0], normed=out))
    run(model)
    assert len(seen["given"]) == 1
    assert torch.equal(seen["given"][0], seen["normed"])
    if name == "mlp":
        torch.testing.assert_close(seen["block"], seen["stream"] + seen["out"])


LAYERS = ["norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"]
LAYERS_V2 = [*LAYERS, "attn.cpb_mlp.0", "attn.cpb_mlp.2"]
PRUNED = [*(("v1", name) for name in LAYERS), *(("v2", name) for name in LAYERS_V2)]


@pytest.mark.parametrize("kind, name", PRUNED)
def test_pruning_is_zeros_in_the_weight(kind, name):
    pruned, zeroed = build(kind), build(kind)
    mask = torch.rand(pruned.get_submodule(f"{BLOCK}.{name}").weight.shape) < 0.5
    prune.custom_from_mask(pruned.get_submodule(f"{BLOCK}.{name}"), "weight", mask)
    zeroed.get_submodule(f"{BLOCK}.{name}").weight.data.mul_(mask)
    assert_same(run(pruned), run(zeroed))
    wanted = run(zeroed)
    zeroed.get_submodule(f"{BLOCK}.{name}").weight.data.mul_(2)
    pruned.get_submodule(f"{BLOCK}.{name}").weight_orig.data.mul_(2)  # seen at the next call
    assert_same(run(pruned), run(zeroed))
    assert not torch.allclose(run(pruned)[1], wanted[1])


def test_a_pruned_bias_is_what_a_padded_token_has(kind):
    pruned, zeroed = build(kind), build(kind)
    name = "v_bias" if kind == "v2" else "qkv.bias"
    owner, _, parameter = f"{BLOCK}.attn.{name}".rpartition(".")
    mask = (torch.arange(len(getattr(pruned.get_submodule(owner), parameter))) % 2).bool()
    prune.custom_from_mask(pruned.get_submodule(owner), parameter, mask)
    getattr(zeroed.get_submodule(owner), parameter).data.mul_(mask)
    assert_same(run(pruned), run(zeroed))


@pytest.mark.parametrize("tool", [parametrizations.weight_norm, nn.utils.weight_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_weight_norm_changes_nothing_until_its_magnitude_does(kind, tool):
    plain, normed = build(kind), build(kind)
    names = ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"]
    names += ["attn.cpb_mlp.0", "attn.cpb_mlp.2"] if kind == "v2" else []
    for name in names:
        tool(normed.get_submodule(f"{BLOCK}.{name}"))
    assert_same(run(normed), run(plain))
    for name in names:
        layer = normed.get_submodule(f"{BLOCK}.{name}")
        magnitudes = [p for key, p in layer.named_parameters() if key.endswith(("_g", "original0"))]
        magnitudes[0].data.mul_(2)
        plain.get_submodule(f"{BLOCK}.{name}").weight.data.mul_(2)
    assert_same(run(normed), run(plain))


@pytest.mark.parametrize("layers, size", [({nn.Linear}, (112, 112)), ({"qkv"}, SIZE)], ids=str)
def test_dynamic_quantisation_is_that_of_mmdets_class(layers, size):
    """It rounds by the range of all that a layer takes, and makes `bias` a method.

    mmdet's projection takes padded tokens too, so that size has none.
    """
    torch.manual_seed(0)
    stock = MMDetSwin(**SMALL, drop_path_rate=0.0)
    stock.eval()  # which gives None
    for parameter in stock.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    ours = SwinTransformer(**SMALL, drop_path_rate=0.0).eval()
    ours.load_state_dict(stock.state_dict())
    float_maps = run(ours, size)
    for stages in (stock.stages, ours.layers):
        for module in [m for stage in stages for m in stage.blocks.modules() if hasattr(m, "qkv")]:
            torch.ao.quantization.quantize_dynamic(module, layers, inplace=True)
            assert callable(module.qkv.bias)
    found, wanted = run(ours, size), run(stock, size)
    for ours_map, stock_map, float_map in zip(found, wanted, float_maps, strict=True):
        error = (stock_map - float_map).abs().max()
        assert (ours_map - stock_map).abs().max() < 0.05 * error


def test_dynamic_quantisation_of_every_kind_is_near(kind):
    model = build(kind)
    quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})
    if kind == "v2":
        assert type(quantised.get_submodule(f"{BLOCK}.attn.cpb_mlp.0")) is not nn.Linear
    for found, wanted in zip(run(quantised), run(model), strict=True):
        assert (found - wanted).abs().mean() < 0.05 * wanted.abs().mean()


@pytest.mark.slow
@pytest.mark.parametrize("with_cp", [False, True])
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::FutureWarning")
def test_a_trace_outside_no_grad(kind, with_cp):
    """With PyTorch's check, which traces twice; the graph is the same, whoever called before."""
    model = build(kind, with_cp=with_cp)
    image = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    for _ in range(2):
        traced = torch.jit.trace(model, image)
        assert_same(traced(image), run(model))
        assert_same(run(model), run(traced, grad=True))
    loss = sum(out.sum() for out in traced(image))
    loss.backward()
    traced_grads = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    sum(out.sum() for out in model(image)).backward()
    for found, parameter in zip(traced_grads, model.parameters(), strict=True):
        torch.testing.assert_close(found, parameter.grad, rtol=1e-3, atol=1e-3)


def test_gradients_of_an_ensemble_and_derivatives_in_a_direction(kind):
    """By torch.func, against autograd of each model: inside, no tensor tells that it needs one."""
    model = build(kind)
    image = torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    states = [{n: p.detach() * scale for n, p in model.named_parameters()} for scale in (1.0, 1.1)]

    def loss(state):
        return sum(x.square().mean() for x in torch.func.functional_call(model, state, (image,)))

    wanted = []
    for state in states:
        leaves = {name: value.clone().requires_grad_() for name, value in state.items()}
        wanted.append(
            dict(zip(leaves, torch.autograd.grad(loss(leaves), leaves.values()), strict=True))
        )
    stacked = {name: torch.stack([state[name] for state in states]) for name in states[0]}
    found = torch.func.grad(lambda several: torch.func.vmap(loss)(several).sum())(stacked)
    for number, grads in enumerate(wanted):
        for name, grad in grads.items():
            torch.testing.assert_close(found[name][number], grad, rtol=1e-3, atol=1e-5)

    _, slope = torch.func.jvp(loss, (states[0],), (states[0],))
    along = sum((wanted[0][name] * value).sum() for name, value in states[0].items())
    torch.testing.assert_close(slope, along, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("path", ["assign", "to_empty", "to_empty per module", "reset"])
def test_construction_without_memory(kind, path):
    """What follows from sizes alone is right, however the parameters come."""
    model = build(kind)
    cls, arguments = KINDS[kind]
    with torch.device("meta"):
        empty = cls(**{**SMALL, "drop_path_rate": 0.0, **arguments}).eval()
    if path == "assign":
        empty.load_state_dict(model.state_dict(), assign=True)
    elif path == "to_empty per module":  # as FSDP does it
        for module in empty.modules():
            own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
            if own:
                module.to_empty(device="cpu", recurse=False)
                module.reset_parameters()
        empty.load_state_dict(model.state_dict())
    else:
        empty.to_empty(device="cpu")
        for tensor in (*empty.parameters(), *empty.buffers()):
            tensor.data.fill_(float("nan") if tensor.is_floating_point() else 10**15)
        if path == "to_empty":
            empty.load_state_dict(model.state_dict())
    if path == "reset":
        empty.reset_parameters()
        fresh = cls(**{**SMALL, "drop_path_rate": 0.0, **arguments})
        for (name, found), wanted in zip(empty.named_parameters(), fresh.parameters(), strict=True):
            found, wanted = found.detach(), wanted.detach()
            assert found.isfinite().all(), name
            if found.numel() == 1 or wanted.std() == 0:
                assert torch.equal(found, wanted), name  # zeros, ones and V2's factor
            else:
                assert found.std() == pytest.approx(wanted.std().item(), rel=0.3), name
        return
    assert_same(run(empty), run(model))
    assert_same(run(empty, grad=True), run(model))


def test_what_a_file_lacks_is_initial_in_a_model_without_memory():
    """A classifier has no norms of the maps before the last, and no mixed context."""
    arguments = SWIN | dict(context_scales=("window", "global"))
    with torch.device("meta"):
        empty = SwinTransformer(**arguments).eval()
    filled = SwinTransformer(**arguments).eval()
    state = microsoft_state()
    for model, assign in ((empty, True), (filled, False)):
        model.load_state_dict(state, assign=assign)
    assert not any(tensor.is_meta for tensor in empty.state_dict().values())
    assert_same(run(empty), run(filled))


def test_copies_are_equal(kind):
    model = build(kind)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_same(run(twin), run(model))
        assert_same(run(twin.double().float()), run(model))


def test_weights_changed_in_place_show_at_the_next_call(kind):
    model, other = build(kind), build(kind)
    before = run(model)
    for parameter in other.parameters():
        parameter.data.add_(0.05)
    for parameter in model.parameters():
        parameter.data.add_(0.05)
    assert_same(run(model), run(other))
    model.load_state_dict(build(kind).state_dict())
    assert_same(run(model), before)


def test_a_run_on_the_meta_device_leaves_nothing_behind(kind):
    with torch.device("meta"):
        cls, arguments = KINDS[kind]
        empty = cls(**{**SMALL, **arguments}).eval()
        shapes = [out.shape for out in empty(torch.empty(2, 3, *SIZE))]
        index = relative_position_index((3, 5))
    assert index.is_meta
    assert relative_position_index((3, 5)).device.type == "cpu"
    assert shapes == [out.shape for out in run(build(kind))]


def test_a_run_of_fake_tensors_leaves_nothing_behind(kind):
    from torch._subclasses import FakeTensorMode

    model, size = build(kind), (61, 77)  # a size of its own
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode, torch.no_grad():
        shapes = [out.shape for out in model(torch.empty(2, 3, *size))]
    with torch.no_grad():
        assert [out.shape for out in model(torch.zeros(2, 3, *size))] == shapes
