"""Our FPN against mmdet's: values, gradients, state dict."""

import pytest
import torch
from mmdet.models.necks import FPN as MMDetFPN
from mmseg.registry import MODELS as MMSEG_MODELS

from swin_mm.models.necks.fpn import FPN

WIDTHS = [8, 12, 16, 20]
CASES = {
    "plain": dict(num_outs=5),
    "as-many": dict(num_outs=4),
    "from-level-1": dict(num_outs=5, start_level=1),
    "to-level-2": dict(num_outs=3, end_level=2),
    "last-named": dict(num_outs=6, end_level=3),
    "on-input": dict(num_outs=6, add_extra_convs="on_input"),
    "true": dict(num_outs=5, add_extra_convs=True),
    "on-lateral": dict(num_outs=6, add_extra_convs="on_lateral", relu_before_extra_convs=True),
    "on-output": dict(
        num_outs=6, start_level=1, add_extra_convs="on_output", relu_before_extra_convs=True
    ),
    "norm-and-act": dict(
        num_outs=5, norm_cfg=dict(type="GN", num_groups=2), act_cfg=dict(type="ReLU")
    ),
    "no-norm-on-lateral": dict(
        num_outs=5, norm_cfg=dict(type="GN", num_groups=2), no_norm_on_lateral=True
    ),
    "bilinear": dict(num_outs=4, upsample_cfg=dict(mode="bilinear", align_corners=False)),
}


def maps(size=(37, 51)):
    torch.manual_seed(1)
    sides = [(-(-size[0] // 2**i), -(-size[1] // 2**i)) for i in range(4)]
    return [
        torch.randn(2, w, *s).to(memory_format=torch.channels_last).requires_grad_()
        for w, s in zip(WIDTHS, sides, strict=True)
    ]


def assert_equal(arguments, size=(37, 51)):
    torch.manual_seed(0)
    stock, ours = MMDetFPN(WIDTHS, 6, **arguments), FPN(WIDTHS, 6, **arguments)
    ours.load_state_dict(stock.state_dict(), strict=True)
    assert list(ours.state_dict()) == list(stock.state_dict())
    results = []
    for model in (stock, ours):
        inputs = maps(size)
        outs = model(inputs)
        torch.manual_seed(2)
        sum((o * torch.randn(o.shape)).sum() for o in outs).backward()
        grads = [x.grad for x in inputs] + [p.grad for p in model.parameters()]
        results.append((outs, grads))
    assert len(results[0][0]) == len(results[1][0]) == arguments["num_outs"]
    for a, b in zip(results[1][0], results[0][0], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    for a, b in zip(results[1][1], results[0][1], strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("arguments", CASES.values(), ids=CASES)
def test_values_gradients_and_names_are_those_of_mmdet(arguments):
    assert_equal(arguments)


def test_scale_factor_instead_of_size():
    upsample_cfg = dict(mode="nearest", scale_factor=2)
    assert_equal(dict(num_outs=4, upsample_cfg=upsample_cfg), size=(32, 48))
    assert upsample_cfg == dict(mode="nearest", scale_factor=2)


def test_initialisation_is_that_of_mmdet():
    stock, ours = MMDetFPN(WIDTHS, 6, num_outs=4), FPN(WIDTHS, 6, num_outs=4)
    for model in (stock, ours):
        torch.manual_seed(0)
        model.init_weights()
    for a, b in zip(ours.parameters(), stock.parameters(), strict=True):
        assert torch.equal(a, b)


def test_channels_last_stays():
    for out in FPN(WIDTHS, 6, num_outs=4)(maps()):
        assert out.is_contiguous(memory_format=torch.channels_last)


def test_serves_mmseg():
    neck = MMSEG_MODELS.build(
        dict(type="swin_mm.FPN", in_channels=WIDTHS, out_channels=6, num_outs=4)
    )
    assert type(neck) is FPN and len(neck(maps())) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(num_outs=3), "num_outs must be at least 4 .* got num_outs=3"),
        (dict(num_outs=5, end_level=2), "num_outs must be exactly 3"),
        (dict(num_outs=4, end_level=4), r"levels must lie in \[0, 3\]"),
        (dict(num_outs=4, start_level=-1), r"levels must lie in \[0, 3\]"),
        (dict(num_outs=5, add_extra_convs="on_top"), "add_extra_convs must be a bool or one of"),
    ],
    ids=str,
)
def test_arguments_that_disagree_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        FPN(WIDTHS, 6, **arguments)


def test_another_number_of_maps_is_refused():
    with pytest.raises(ValueError, match=r"built for 4 maps .* got 3"):
        FPN(WIDTHS, 6, num_outs=4)(maps()[:3])
