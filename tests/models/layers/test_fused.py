"""Fused forms by Triton: the numbers of single layers, in fewer launches, or a reason why not."""

import copy
import logging
import re

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from swin_mm.models import SwinTransformer, SwinTransformerV2
from swin_mm.models.backbones.base import SwinStage
from swin_mm.models.layers import SwinBlock, fused
from swin_mm.models.lora import add_lora
from swin_mm.ops import dispatch, self_test
from swin_mm.ops.setting import Setting

pytest.importorskip("triton")
from swin_mm.ops.triton import launch, rows

HAS_GPU = torch.cuda.is_available() and not launch.IS_INTERPRETED
DEVICE = "cuda" if HAS_GPU else "cpu"
pytestmark = [pytest.mark.gpu] if HAS_GPU else []
if not HAS_GPU and not launch.IS_INTERPRETED:
    pytest.skip("neither a GPU nor Triton's interpreter", allow_module_level=True)

HALF = torch.bfloat16
DIRECTIONS = 3  # of gradients, since of one number an error is a draw
SMALL = dict(
    embed_dims=16,
    depths=(2, 1),
    num_heads=(1, 2),
    strides=(4, 2),
    out_indices=(0, 1),
    window_size=4,
    mlp_ratio=2,
    drop_path_rate=0.0,
)


def build(backbone=SwinTransformer, **changes):
    """The reference backbone, and the same with fused blocks."""
    torch.manual_seed(0)
    plain = backbone(**SMALL | changes | dict(attn_backend="reference"))
    for parameter in plain.parameters():
        nn.init.normal_(parameter, std=0.3)
    quick = backbone(**SMALL | dict(attn_backend="triton") | changes)
    quick.load_state_dict(plain.state_dict())
    return plain.to(DEVICE), quick.to(DEVICE)


def make_images(size=(20, 28), batch=1):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, *size, generator=generator).to(DEVICE).requires_grad_()


def run(model, images, dtype=None, seed=3, directions=1):
    """Maps, and gradients of image and trained parameters, each in some directions."""
    torch.manual_seed(seed)
    with torch.autocast(DEVICE, dtype, enabled=dtype is not None):
        maps = model(images)
    generator = torch.Generator().manual_seed(2)
    leaves = {name: p for name, p in model.named_parameters() if p.requires_grad}
    leaves = {"image": images, **leaves}
    grads = []
    for _ in range(directions):
        along = [torch.randn(m.shape, generator=generator).to(m) for m in maps]
        inputs = list(leaves.values())
        grads.append(torch.autograd.grad(maps, inputs, along, allow_unused=True, retain_graph=True))
    found = {f"map{i}": m for i, m in enumerate(maps)}
    return found | {
        n: torch.stack(g) for n, g in zip(leaves, zip(*grads, strict=True), strict=True)
    }


@pytest.fixture
def launched(monkeypatch):
    """Names of the kernels by rows that run."""
    names = []
    start = rows.launch

    def note(kernel, *arguments, **constants):
        names.append(f"{kernel.fn.__module__.rpartition('.')[2]}.{kernel.fn.__name__[:-7]}")
        start(kernel, *arguments, **constants)

    monkeypatch.setattr(rows, "launch", note)
    return names


def assert_within_twice_the_plain(plain, quick, images, dtype):
    exact = copy.deepcopy(plain).double()
    along = dict(directions=DIRECTIONS)
    expected = run(exact, images.detach().double().requires_grad_(), **along)
    stock, found = (run(model, images, dtype, **along) for model in (plain, quick))
    assert all(value.dtype == stock[name].dtype for name, value in found.items())
    assert_within_twice(found, stock, expected)


def assert_within_twice(found, stock, expected):
    """Errors relative to those of the plain backbone, or to what those usually are."""
    ours, theirs = (
        {
            name: (values[name].double() - target).norm() / target.norm().clamp_min(1e-30)
            for name, target in expected.items()
        }
        for values in (found, stock)
    )
    usual = torch.stack(list(theirs.values())).quantile(0.75).item()
    for name, error in ours.items():
        assert error <= 2 * max(theirs[name], usual), f"{name}: {error=}, {theirs[name]=}, {usual=}"


# Of the embedding, three blocks, the sums and norms of two maps, and the merging between.
V1_BLOCK = ["add_norm.forward", "add_norm.forward", "mlp.forward"]
V2_BLOCK = ["norm_add.forward", "mlp.forward", "norm_add.forward"]
FORWARD = {
    SwinTransformer: ["add_norm.forward", *V1_BLOCK, *V1_BLOCK]
    + ["add_norm.forward", "merge_norm.forward", *V1_BLOCK, "add_norm.forward"],
    SwinTransformerV2: ["add_norm.forward", *V2_BLOCK, *V2_BLOCK, *V2_BLOCK],
}


@pytest.mark.parametrize(
    ("backbone", "dtype", "window"),
    [
        pytest.param(SwinTransformer, None, 4, marks=pytest.mark.slow),
        (SwinTransformer, HALF, 4),
        pytest.param(SwinTransformerV2, None, 4, marks=pytest.mark.slow),
        pytest.param(SwinTransformerV2, torch.float16, 4, marks=pytest.mark.slow),
        (SwinTransformerV2, HALF, 4),
        pytest.param(SwinTransformerV2, HALF, 9, id="several-tiles", marks=pytest.mark.slow),
    ],
)
def test_values_and_gradients(backbone, dtype, window, launched):
    plain, quick = build(backbone, window_size=window)
    size = (20, 28) if window == 4 else (8, 12)  # the interpreter takes its time
    assert_within_twice_the_plain(plain, quick, make_images(size), dtype)
    forward = [name for name in launched if name.endswith("forward")]
    assert forward == FORWARD[backbone]
    assert len(launched) == (1 + DIRECTIONS) * len(forward)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", [SwinTransformer, SwinTransformerV2])
def test_stochastic_depth_drops_the_same_samples(backbone):
    plain, quick = (model.train() for model in build(backbone, drop_path_rate=0.6, depths=(1, 2)))
    images = make_images((8, 12), batch=6)
    stock, found = run(plain, images), run(quick, images)
    for name in found:
        bound = 1e-4 * stock[name].abs().max().item()
        torch.testing.assert_close(found[name], stock[name], rtol=0, atol=bound, msg=name)
    assert not torch.equal(found["map1"], run(quick, images, seed=4)["map1"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        dict(with_cp=True),
        dict(frozen_stages=1),
        dict(out_indices=(1,)),
        dict(patch_norm=False),
        dict(qkv_bias=False, context_scales=("window", "global")),
        dict(strides=(4, 1)),
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_options_give_what_the_plain_backbone_gives(changes, launched):
    plain, quick = (model.train() for model in build(**changes))
    assert_within_twice_the_plain(plain, quick, make_images(), HALF)
    assert (
        launched.count("mlp.backward") == 3 * DIRECTIONS
    )  # the image wants a gradient through frozen stages


@pytest.mark.slow
@pytest.mark.parametrize("backbone", [SwinTransformer, SwinTransformerV2])
def test_a_float32_sum_of_narrow_branches(backbone, monkeypatch):
    """What CUDA's autocast gives norms, and with them the sums; the CPU's leaves them narrow."""
    monkeypatch.setattr(Setting, "norm_dtype", torch.float32)
    plain, quick = build(backbone)
    dtypes = {t.dtype for t in run(quick, make_images(), HALF).values()}
    assert dtypes == {torch.float32}
    images = make_images()
    along = dict(directions=DIRECTIONS)
    expected = run(
        copy.deepcopy(plain).double(), images.detach().double().requires_grad_(), **along
    )
    stock, found = (run(model, images, HALF, **along) for model in (plain, quick))
    assert_within_twice(found, stock, expected)


@pytest.mark.slow
def test_extra_norm_of_v2():
    plain, quick = build(SwinTransformerV2, extra_norm_every_n_blocks=1)
    assert_within_twice_the_plain(plain, quick, make_images(batch=3), HALF)


def test_a_model_of_narrow_weights():
    plain, quick = (model.to(HALF).eval() for model in build())
    images = make_images().detach().to(HALF)
    with torch.no_grad():
        exact = copy.deepcopy(plain).double()(images.double())
        for found, stock, expected in zip(quick(images), plain(images), exact, strict=True):
            assert found.dtype == HALF
            assert (found - expected).norm() <= 2 * (stock - expected).norm()


@pytest.mark.slow
def test_two_runs_give_the_same_bits():
    _, quick = build()
    first, second = (run(quick, make_images(), HALF) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


class LaunchCounter(TorchDispatchMode):
    """Counts what would be launches on a GPU: operators that compute, not views nor allocations."""

    VIEWS = ("detach", "empty", "new_empty", "empty_like", "_unsafe_view", "lift_fresh")

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        is_view = any(r.alias_info and not r.alias_info.is_write for r in func._schema.returns)
        self.count += not is_view and name not in self.VIEWS
        return func(*args, **kwargs or {})


def count_launches(model, x, monkeypatch):
    """Operators of a training step of a block under autocast, and kernels of Triton."""
    kernels = []
    monkeypatch.setattr(rows, "launch", lambda *_, **__: kernels.append(1))

    def attend(self, name, *tensors, **counts):
        kernels.append(1)

    monkeypatch.setattr(launch._Launcher, "__call__", attend)
    for parameter in model.parameters():
        parameter.grad = None
    with LaunchCounter() as counter:
        with torch.autocast(DEVICE, torch.bfloat16):
            out = model(x)
        out.backward(torch.ones_like(out))
    return counter.count + len(kernels)


def test_a_fused_block_takes_fewer_launches(monkeypatch):
    """Against the same attention between PyTorch's operators, and the reference's."""
    plain, quick = (model.layers[0].blocks[1].train() for model in build(drop_path_rate=0.5))
    x = torch.randn(2, 8, 8, 16, device=DEVICE, requires_grad=True)
    counts = {"fused": count_launches(quick, x, monkeypatch)}
    monkeypatch.setattr(fused, "_why_not_modules", lambda block: "the test")
    quick._fused_choice = None
    counts["with the attention's kernels"] = count_launches(quick, x, monkeypatch)
    counts["plain"] = count_launches(plain, x, monkeypatch)
    # The rest are products of matrices and their casts, of V1 in bfloat16.
    assert counts["fused"] <= 50
    assert counts["fused"] < 0.7 * counts["with the attention's kernels"]
    assert counts["fused"] < 0.4 * counts["plain"]


def block_and_map(**changes):
    plain, quick = build(**changes)
    x = torch.randn(2, 5, 6, 16, device=DEVICE)
    return plain.layers[0].blocks[1], quick.layers[0].blocks[1], x


def why_not(block, x):
    """Why a block is not fused by Triton, `None` where it is."""
    name = fused.choose(block, x, block.attn.attn_backend)
    if name == "triton":
        return None
    setting = fused.setting_of(x, torch.is_grad_enabled())
    return fused._choose(block, setting, block.attn.attn_backend)[1]


class MyBlock(SwinBlock):
    pass


def hook(*_):
    return None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda b: setattr(b.attn, "attn_backend", "sdpa"), "attn_backend is 'sdpa'"),
        (lambda b: setattr(b.attn, "attn_backend", "auto"), "the kernels run on CUDA"),
        (lambda b: b.mlp.fc2.register_forward_pre_hook(hook), "Linear has hooks"),
        (lambda b: b.norm2.register_full_backward_hook(hook), "LayerNorm has hooks"),
        (lambda b: b.attn.register_full_backward_pre_hook(hook), "WindowAttention has hooks"),
        (lambda b: setattr(b, "norm1", nn.Identity()), "a norm is Identity"),
        (lambda b: setattr(b, "norm2", nn.LayerNorm(16, bias=False)), "a norm is LayerNorm"),
        (lambda b: setattr(b.mlp, "act", nn.GELU("tanh")), "the activation is GELU.*tanh"),
        (lambda b: b.mlp.drop.__init__(0.1), "dropout is active"),
        (lambda b: b.attn.proj_drop.__init__(0.1), "dropout is active"),
        (lambda b: add_lora(nn.ModuleDict(dict(block=b)), 2), "a linear layer is Linear"),
        (lambda b: setattr(b, "__class__", MyBlock), "MyBlock has no fused form"),
        (lambda b: b.norm1.bfloat16(), "a norm is torch.bfloat16 and the map torch.float32"),
        (lambda b: b.norm2.double(), "a norm is torch.float64 and the map torch.float32"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_blocks_that_are_not_fused_say_why(change, reason, monkeypatch, caplog):
    monkeypatch.setattr(self_test, "is_gpu", lambda device: False)
    _, block, x = block_and_map()
    assert why_not(block, x) is None
    change(block)
    dispatch.log_choice.cache_clear()
    with caplog.at_level(logging.DEBUG, logger="swin_mm"):
        for _ in range(2):
            found = why_not(block, x)
    assert re.search(reason, found)
    if "attn_backend" not in found and "on CUDA" not in found:
        (record,) = caplog.records  # once
        assert found in record.getMessage()


@pytest.fixture
def untried(monkeypatch):
    """`auto` on what counts as a GPU, where nothing has been tried yet."""
    monkeypatch.setattr(self_test, "is_gpu", lambda device: True)
    monkeypatch.setattr(self_test, "_results", {})
    monkeypatch.setattr(self_test, "ROW_ELEMENTS", 1)
    monkeypatch.setattr(self_test, "ATTENTION_TOKENS", 1)


KINDS = {
    SwinTransformer: {"add_norm", "merge_norm", "mlp", "window attention"},
    SwinTransformerV2: {"add_norm", "norm_add", "mlp", "window attention"},
}


@pytest.mark.slow
@pytest.mark.parametrize("backbone", [SwinTransformer, SwinTransformerV2])
def test_auto_is_fused_where_all_self_tests_pass(backbone, untried, launched, caplog):
    _, quick = build(backbone, depths=(1, 1))
    expected = run(quick, make_images(), torch.float16)
    _, tried = build(backbone, depths=(1, 1), attn_backend="auto")
    run(tried, make_images(), torch.float16)
    assert {subject.kernels for subject in self_test._results} == KINDS[backbone]
    assert set(self_test._results.values()) == {None} and not caplog.records
    launched.clear()
    found = run(tried, make_images(), torch.float16)
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert launched and "merge_norm" not in launched[0]


def test_auto_takes_single_layers_where_a_kernel_lies(untried, launched, monkeypatch, caplog):
    monkeypatch.setattr(self_test, "_test_rows", lambda work: "it errs")
    plain, tried = build(attn_backend="auto")
    monkeypatch.setattr(self_test, "_test_attention", lambda *_: "it errs")
    with torch.no_grad():
        found, expected = tried(make_images()), plain(make_images())
    for maps in zip(found, expected, strict=True):
        torch.testing.assert_close(*maps, rtol=1e-4, atol=1e-4)
    assert not launched
    warned = {record.getMessage().partition(" by ")[0] for record in caplog.records}
    assert {"add_norm", "merge_norm"} <= warned
    block, x = tried.layers[0].blocks[0], torch.randn(2, 5, 6, 16, device=DEVICE)
    assert "add_norm: self-test failed: it errs" in why_not(block, x)


def test_a_hook_on_all_modules():
    _, block, x = block_and_map()
    handle = nn.modules.module.register_module_forward_hook(hook)
    assert "a hook sees all modules" in why_not(block, x)
    handle.remove()
    assert why_not(block, x) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        "layers.0",
        "layers.0.blocks.1",
        "layers.0.blocks.1.mlp.fc1",
        "layers.0.downsample",
        "layers.0.downsample.norm",
        "patch_embed.proj",
        "norm0",
        "layers.0.blocks.0.attn",
    ],
)
def test_hooks_see_maps_and_change_them(path):
    """A hook gets and gives tensors, and has the effect it has on single layers."""
    plain, quick = build()
    results = []
    for model in (plain, quick):
        model.get_submodule(path).register_forward_hook(lambda module, inputs, out: 2 * out)
        with torch.no_grad():
            results.append(model(make_images()))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_a_divided_block_is_called_and_fused():
    """`fully_shard` gives it hooks, which gather its weights, and another class."""
    _, block, x = block_and_map()
    stage = SwinStage([block], None, with_cp=False)
    results = []
    store = dist.HashStore()
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        for is_divided in (False, True):
            if is_divided:
                fully_shard(block, mesh=init_device_mesh(DEVICE, (1,)))
            assert why_not(block, x) is None
            block.zero_grad()
            out = stage(x)
            out.sin().sum().backward()
            gradients = [p.grad for p in block.parameters()]
            whole = [g.full_tensor() if isinstance(g, DTensor) else g for g in gradients]
            results.append((out, *whole))
        assert isinstance(gradients[0], DTensor)
    finally:
        dist.destroy_process_group()
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)


def test_compile_export_and_vmap_take_single_layers(launched):
    """And the block of a map that is not transformed is fused again afterwards."""
    plain, quick, x = (
        item.eval() if isinstance(item, nn.Module) else item for item in block_and_map()
    )
    with torch.no_grad():
        expected = plain(x)
        compiled = torch.compile(quick, backend="eager", fullgraph=True)(x)
        torch.testing.assert_close(compiled, expected, rtol=1e-4, atol=1e-4)
        quick.attn.attn_backend = "triton"
        seen = []
        torch.func.vmap(lambda y: seen.append(why_not(quick, y)) or y)(x)
        assert "torch.func" in seen[0]
        assert not launched
        torch.testing.assert_close(quick(x), expected, rtol=1e-4, atol=1e-4)
        assert launched
