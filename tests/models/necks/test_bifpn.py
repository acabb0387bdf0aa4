"""BiFPN by its formula, with the state dict of the official RepPoints V2."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from swin_mm.models.necks.bifpn import BiFPN

WIDTHS = [8, 12, 16]
NORM = dict(type="GN", num_groups=4)


def maps(*sides, dtype=torch.float32):
    torch.manual_seed(1)
    return [torch.randn(2, w, *s, dtype=dtype) for w, s in zip(WIDTHS, sides, strict=True)]


def test_state_dict_is_the_official_one():
    """With 256 channels and two rounds on Swin-T, as in the official config."""
    norm = dict(type="GN", num_groups=32)
    with torch.device("meta"):
        neck = BiFPN([192, 384, 768], 256, num_outs=5, num_repeat=2, norm_cfg=norm)
    wanted = {}
    for i in range(2):
        convs = {f"lateral_combine_conv.{j}": (256, 256, 3, 3) for j in range(4)}
        convs |= {f"out_combine_conv.{j}": (256, 256, 3, 3) for j in range(4)}
        if i == 0:
            widths = (192, 384, 768, 768, 768)
            convs |= {f"lateral_convs.{j}": (256, w, 1, 1) for j, w in enumerate(widths)}
        for name, shape in convs.items():
            wanted[f"bi_fpn.{i}.{name}.conv.weight"] = shape
            wanted[f"bi_fpn.{i}.{name}.gn.weight"] = wanted[f"bi_fpn.{i}.{name}.gn.bias"] = (256,)
        for j in range(4):
            wanted[f"bi_fpn.{i}.lateral_combine.{j}.weights"] = (1, 1, 1, 1, 2)
            wanted[f"bi_fpn.{i}.out_combine.{j}.weights"] = (1, 1, 1, 1, 2 if j == 3 else 3)
    assert {name: tuple(x.shape) for name, x in neck.state_dict().items()} == wanted


def combine(module, *inputs):
    weights = module.weights.flatten().clamp(min=0)
    total = sum(w * x for w, x in zip(weights / (weights.sum() + 1e-4), inputs, strict=True))
    return total * total.sigmoid()


@pytest.mark.parametrize(
    "sides", [[(16, 24), (8, 12), (4, 6)], [(13, 19), (7, 10), (4, 5)], [(3, 2), (2, 1), (1, 1)]]
)
def test_one_round_by_its_formula(sides):
    """Down from the coarsest map, then up, where inner maps see their input once more."""
    neck = BiFPN(WIDTHS, 16, num_outs=4, num_repeat=1, norm_cfg=NORM)
    torch.manual_seed(0)
    for parameter in neck.parameters():
        torch.nn.init.normal_(parameter)
    inputs = maps(*sides)
    (step,) = neck.bi_fpn
    p = [*inputs, F.max_pool2d(inputs[-1], 3, 2, 1)]
    # The third input has 16 channels already, and so has what is pooled from it.
    p = [step.lateral_convs[i](x) if i < 2 else x for i, x in enumerate(p)]

    def up(x, like):
        return F.interpolate(x, like.shape[2:])

    down = step.lateral_combine
    a3 = p[3]
    a2 = step.lateral_combine_conv[2](combine(down[2], p[2], up(a3, p[2])))
    a1 = step.lateral_combine_conv[1](combine(down[1], p[1], up(a2, p[1])))
    b0 = step.lateral_combine_conv[0](combine(down[0], p[0], up(a1, p[0])))
    b1 = step.out_combine_conv[0](combine(step.out_combine[0], pool(b0), a1, p[1]))
    b2 = step.out_combine_conv[1](combine(step.out_combine[1], pool(b1), a2, p[2]))
    b3 = step.out_combine_conv[2](combine(step.out_combine[2], pool(b2), a3))
    for found, wanted in zip(neck(inputs), (b0, b1, b2, b3), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def pool(x):
    return F.max_pool2d(x, 3, stride=2, padding=1)


def test_gradients():
    neck = BiFPN([2, 3], 4, num_outs=3, num_repeat=1).double()
    torch.manual_seed(0)
    inputs = [torch.randn(1, w, s, s, dtype=torch.float64) for w, s in ((2, 4), (3, 2))]
    parameters = [p.detach().requires_grad_() for p in neck.state_dict().values()]
    names = list(neck.state_dict())

    def run(*values):
        state = dict(zip(names, values[2:], strict=True))
        return torch.func.functional_call(neck, state, (values[:2],))

    assert gradcheck(run, (*(x.requires_grad_() for x in inputs), *parameters), fast_mode=True)


def test_weights_that_are_not_positive_are_left_out():
    neck = BiFPN([8, 8], 8, num_outs=2, num_repeat=1)
    combination = neck.bi_fpn[0].lateral_combine[0]
    combination.weights.data[..., 0] = -3
    x, y = torch.randn(2, 1, 8, 4, 4)
    torch.testing.assert_close(combination(x, y), F.silu(y / 1.0001))


def test_wrong_numbers_of_maps():
    with pytest.raises(ValueError, match="num_outs must be at least 3, .* num_outs=2"):
        BiFPN(WIDTHS, 16, num_outs=2)
    with pytest.raises(ValueError, match="built for 3 maps .* got 1"):
        BiFPN(WIDTHS, 16)(maps((4, 4), (2, 2), (1, 1))[:1])
