"""What V1 and V2 promise alike: stages, freezing, checkpointing, precision, mixed context."""

import copy

import pytest
import torch

from swin_mm.models import SwinTransformer, SwinTransformerV2
from swin_mm.models.backbones.arguments import to_pairs

SMALL = dict(embed_dims=24, depths=(2, 2, 2), num_heads=(1, 2, 4), drop_path_rate=0.0)
SMALL |= dict(strides=(4, 2, 2), out_indices=(0, 1, 2))
SCALES = ("window", 2, "global")

both = pytest.mark.parametrize("backbone", [SwinTransformer, SwinTransformerV2])


def build(backbone, **arguments):
    """A backbone with every parameter off its initial value, but for the mix of contexts."""
    torch.manual_seed(0)
    model = backbone(**(SMALL | arguments))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith("context_mix"):
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def copy_weights(source, target):
    parameters = dict(source.named_parameters())
    with torch.no_grad():
        for name, parameter in target.named_parameters():
            if name in parameters:
                parameter.copy_(parameters[name])


def gradients(model, image):
    sum((m**2).sum() for m in model(image)).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def relative_error(value, expected):
    return ((value - expected).norm() / expected.norm().clamp_min(1e-12)).item()


@both
@pytest.mark.parametrize("out_indices", [(0,), (1,), (2, 0)], ids=str)
def test_only_what_is_output_is_built(backbone, out_indices):
    full, part = build(backbone).eval(), build(backbone, out_indices=out_indices).eval()
    assert len(part.layers) == max(out_indices) + 1
    copy_weights(full, part)
    image = torch.randn(1, 3, 61, 47)
    for i, found in zip(out_indices, part(image), strict=True):
        assert torch.equal(found, full(image)[i])
        assert found.is_contiguous(memory_format=torch.channels_last)
    assert len(gradients(part, image)) == len(list(part.parameters()))


@both
@pytest.mark.parametrize("frozen_stages", [-1, 0, 1, 3])
def test_frozen_stages_stay_frozen(backbone, frozen_stages):
    model = build(backbone, frozen_stages=frozen_stages, use_abs_pos_embed=True)
    assert model.train() is model
    for i, layer in enumerate(model.layers):
        is_frozen = i < frozen_stages
        assert layer.training != is_frozen
        assert all(p.requires_grad != is_frozen for p in layer.parameters())
    stem = [model.absolute_pos_embed, *model.patch_embed.parameters()]
    assert all(p.requires_grad == (frozen_stages < 0) for p in stem)


@both
@pytest.mark.parametrize("scales", [(), SCALES], ids=str)
def test_checkpointing_gives_the_same_gradients(backbone, scales):
    plain = build(backbone, context_scales=scales)
    saving = build(backbone, context_scales=scales, with_cp=True, frozen_stages=1)
    copy_weights(plain, saving)
    calls = []
    saving.layers[-1].blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    image = torch.randn(1, 3, 61, 47)
    wanted, found = gradients(plain, image), gradients(saving, image)
    assert len(calls) == 2  # forward, and again in backward
    assert found.keys() == {n for n, p in saving.named_parameters() if p.requires_grad}
    for name, grad in found.items():
        torch.testing.assert_close(grad, wanted[name], msg=name)


@both
@pytest.mark.parametrize("scales", [(), SCALES], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_stays_near_float32(backbone, dtype, scales):
    """Under autocast, and cast as a whole; outputs and gradients finite and near."""
    exact = build(backbone, context_scales=scales)
    for name, parameter in exact.named_parameters():
        if name.endswith("context_mix"):
            torch.nn.init.normal_(parameter, std=0.2)
    tolerance = {torch.bfloat16: 0.05, torch.float16: 0.01}[dtype]
    image = torch.randn(1, 3, 97, 141)
    wanted = [m.detach() for m in exact(image)]
    for is_cast in (False, True):
        model = copy.deepcopy(exact)
        if is_cast:
            maps = model.to(dtype)(image.to(dtype))
        else:
            with torch.autocast("cpu", dtype):
                maps = model(image)
        for found, expected in zip(maps, wanted, strict=True):
            assert relative_error(found.float(), expected) < tolerance
        sum(m.float().mean() for m in maps).backward()
        assert all(p.grad.isfinite().all() for p in model.parameters())


@both
def test_windows_of_any_shape_and_for_each_stage(backbone):
    model = build(backbone, window_size=[(3, 8), 5, (1, 4)])
    sizes = [stage.blocks[1].attn.window_size for stage in model.layers]
    assert sizes == [(3, 8), (5, 5), (1, 4)]
    assert model.layers[0].blocks[0].attn.shift_size == (0, 0)
    assert [stage.blocks[1].attn.shift_size for stage in model.layers] == [(1, 4), (2, 2), (0, 2)]
    shapes = [tuple(m.shape) for m in model(torch.randn(1, 3, 33, 130))]
    assert shapes == [(1, 24, 9, 33), (1, 48, 5, 17), (1, 96, 3, 9)]


@pytest.mark.parametrize(
    ("value", "num_stages", "expected"),
    [
        (7, 3, [(7, 7)] * 3),
        ((3, 8), 4, [(3, 8)] * 4),
        ((3, 8), 2, [(3, 8)] * 2),
        (((3, 3), (8, 8)), 2, [(3, 3), (8, 8)]),
        ([16, 16, 16, 8], 4, [(16, 16)] * 3 + [(8, 8)]),
        ((5,), 1, [(5, 5)]),
    ],
    ids=str,
)
def test_pairs_for_each_stage(value, num_stages, expected):
    assert to_pairs("window_size", value, num_stages) == expected


@both
@pytest.mark.parametrize("size", [(61, 47), (224, 224)], ids=str)
def test_untrained_context_changes_nothing(backbone, size):
    """To the bit: maps, and the gradients of image and parameters; the mix has gradients too."""
    plain, mixed = build(backbone).train(), build(backbone, context_scales=SCALES).train()
    copy_weights(plain, mixed)
    added = {name for name, _ in mixed.named_parameters()} - {
        n for n, _ in plain.named_parameters()
    }
    assert added == {f"layers.{i}.blocks.{j}.attn.context_mix" for i in range(3) for j in range(2)}
    image = torch.randn(2, 3, *size)
    for found, expected in zip(mixed(image), plain(image), strict=True):
        assert torch.equal(found, expected)
    leaf, mixed_leaf = image.clone().requires_grad_(), image.clone().requires_grad_()
    wanted, found = gradients(plain, leaf), gradients(mixed, mixed_leaf)
    assert torch.equal(mixed_leaf.grad, leaf.grad)
    for name, grad in found.items():
        if name in added:
            assert grad.abs().sum() > 0, name
        else:
            assert torch.equal(grad, wanted[name]), name


@both
def test_trained_context_reaches_across_windows(backbone):
    """A far corner of the map changes, as it cannot within one block's windows."""
    arguments = dict(depths=(1,), num_heads=(2,), strides=(4,), out_indices=(0,))
    image = torch.randn(1, 3, 128, 128)
    changed = image.clone()
    changed[..., -4:, -4:] += 1
    for scales, reaches in (((), False), (("window",), False), (("window", "global"), True)):
        model = build(backbone, **arguments, context_scales=scales).eval()
        if scales:
            torch.nn.init.normal_(model.layers[0].blocks[0].attn.context_mix)
        with torch.no_grad():
            corner = [model(x)[0][..., 0, 0] for x in (image, changed)]
        assert torch.equal(*corner) != reaches


@both
def test_scales_may_come_from_a_config_file(backbone):
    """Which has lists; an unknown one is refused where the backbone is built."""
    model = build(backbone, context_scales=["window", "global"])
    assert model.layers[0].blocks[0].attn.context_mix.shape == (1, 24, 48)
    with pytest.raises(ValueError, match="context_scales must list"):
        build(backbone, context_scales=["windows"])
