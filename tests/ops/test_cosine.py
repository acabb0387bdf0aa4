"""Scaled cosine attention against its formula, in every precision."""

import math

import pytest
import torch
import torch.nn.functional as F

from swin_mm.ops.cosine import scale_to_cosine

HEADS, DIM = 3, 8


def draw(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(2, 5, 7, 3 * HEADS * DIM, generator=generator, dtype=torch.float64)
    logit_scale = torch.tensor([math.log(10), math.log(99), math.log(300)], dtype=torch.float64)
    return qkv.to(dtype).requires_grad_(), logit_scale.requires_grad_()


def by_formula(qkv, logit_scale):
    q, k, v = qkv.reshape(*qkv.shape[:-1], 3, HEADS, DIM).unbind(-3)
    factor = logit_scale.exp().minimum(torch.tensor(100.0).double()).unsqueeze(-1)
    q, k = factor * F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    return torch.stack([q, k, v], dim=-3).flatten(-3)


def test_values_and_gradients_are_those_of_the_formula():
    qkv, logit_scale = draw()
    found, expected = scale_to_cosine(qkv, logit_scale), by_formula(qkv, logit_scale)
    torch.testing.assert_close(found, expected)
    direction = torch.randn_like(expected)
    for a, b in zip(
        torch.autograd.grad(found, (qkv, logit_scale), direction),
        torch.autograd.grad(expected, (qkv, logit_scale), direction),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_the_scale_is_at_most_100_and_learns_nothing_beyond():
    qkv, logit_scale = draw()
    found = scale_to_cosine(qkv, logit_scale)
    lengths = found.unflatten(-1, (3, HEADS, DIM))[..., 0, :, :].norm(dim=-1)
    wanted = torch.tensor([10.0, 99.0, 100.0]).double().expand_as(lengths)
    torch.testing.assert_close(lengths, wanted)
    found.square().sum().backward()
    assert (logit_scale.grad != 0).tolist() == [True, True, False]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_rounds_once(dtype):
    """Lengths whose squares leave float16's range, both ways."""
    qkv, logit_scale = draw()
    for factor in (3000.0, 3e-4):
        rough = (factor * qkv.detach()).to(dtype)
        found = scale_to_cosine(rough, logit_scale.float())
        assert found.dtype == dtype
        exact = by_formula(rough.double(), logit_scale)
        torch.testing.assert_close(found.double(), exact, rtol=torch.finfo(dtype).eps, atol=1e-7)


def test_a_zero_token_has_no_direction():
    found = scale_to_cosine(torch.zeros(1, 3 * HEADS * DIM), torch.zeros(HEADS))
    assert (found == 0).all()


def test_strided_input_is_read_as_it_is():
    qkv, logit_scale = draw()
    strided = qkv.detach().permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    found = scale_to_cosine(strided, logit_scale)
    torch.testing.assert_close(found, scale_to_cosine(qkv, logit_scale))
