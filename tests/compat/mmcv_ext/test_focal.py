"""Focal losses against mmdet's PyTorch version and against autograd."""

import pytest
import torch
from half_precision import HALVES
from mmcv.ops import sigmoid_focal_loss, softmax_focal_loss
from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss
from torch.autograd import gradcheck
from torch.nn import functional as F

CLASSES = 4
# Every class, background as mmdet numbers it, and ignored rows.
TARGET = torch.tensor([0, 3, 4, 2, -1, 1, 4, -1])
SETTINGS = pytest.mark.parametrize(
    ("gamma", "alpha"), [(2.0, 0.25), (1.5, 0.6), (0.0, 0.5)], ids=["usual", "odd", "plain"]
)


def logits(dtype=torch.float64):
    torch.manual_seed(0)
    return (torch.randn(len(TARGET), CLASSES, dtype=torch.float64) * 3).to(dtype)


@SETTINGS
def test_sigmoid_values_and_gradient(gamma, alpha):
    mine, other = logits().requires_grad_(), logits().requires_grad_()
    target = TARGET.where(TARGET >= 0, CLASSES)  # for one_hot; both mean background
    loss = sigmoid_focal_loss(mine, TARGET, gamma, alpha, None, "none")
    one_hot = F.one_hot(target, CLASSES + 1)[:, :CLASSES]
    expected = py_sigmoid_focal_loss(other, one_hot, None, gamma, alpha, "none")
    torch.testing.assert_close(loss, expected)
    direction = torch.randn_like(loss)
    loss.backward(direction)
    expected.backward(direction)
    torch.testing.assert_close(mine.grad, other.grad)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_sigmoid_class_weights(reduction):
    weight = torch.tensor([0.5, 2.0, 3.0, 0.1], dtype=torch.float64)
    plain = sigmoid_focal_loss(logits(), TARGET, 2.0, 0.25, None, "none")
    rows = torch.tensor([weight[t] if 0 <= t < CLASSES else 1.0 for t in TARGET]).double()
    expected = plain * rows[:, None]
    if reduction == "mean":  # mmcv's mean is over rows
        expected = expected.sum() / len(TARGET)
    elif reduction == "sum":
        expected = expected.sum()
    leaf = logits().requires_grad_()
    loss = sigmoid_focal_loss(leaf, TARGET, 2.0, 0.25, weight, reduction)
    torch.testing.assert_close(loss, expected)
    assert gradcheck(
        lambda x: sigmoid_focal_loss(x, TARGET, 2.0, 0.25, weight, reduction), leaf, fast_mode=True
    )


def test_sigmoid_survives_extreme_logits():
    extreme = torch.tensor([[-200.0, 200.0], [200.0, -200.0]], requires_grad=True)
    loss = sigmoid_focal_loss(extreme, torch.tensor([0, 0]), 2.0, 0.25, None, "sum")
    # One class of the first row is wholly wrong in each way: -log of the least float.
    least = -torch.tensor(torch.finfo(torch.float32).tiny).log()
    torch.testing.assert_close(loss, (0.25 + 0.75) * least)
    loss.backward()
    assert extreme.grad.isfinite().all()


def softmax_reference(x, target, gamma, alpha):
    p = x.softmax(1).gather(1, target.clamp(min=0)[:, None])[:, 0]
    return torch.where(target >= 0, -alpha * (1 - p) ** gamma * p.log(), 0.0)


@SETTINGS
def test_softmax_values_and_gradient(gamma, alpha):
    target = TARGET.where(TARGET < CLASSES, 0)
    mine, other = logits().requires_grad_(), logits().requires_grad_()
    loss = softmax_focal_loss(mine, target, gamma, alpha, None, "sum")
    expected = softmax_reference(other, target, gamma, alpha).sum()
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(mine.grad, other.grad)
    assert not mine.grad[target < 0].any()


def test_softmax_class_weights():
    target = TARGET.where(TARGET < CLASSES, 0)
    weight = torch.tensor([0.5, 2.0, 3.0, 0.1], dtype=torch.float64)
    loss = softmax_focal_loss(logits(), target, 2.0, 0.25, weight, "none")
    expected = softmax_reference(logits(), target, 2.0, 0.25) * weight[target.clamp(min=0)]
    torch.testing.assert_close(loss, expected)
    leaf = logits().requires_grad_()
    assert gradcheck(
        lambda x: softmax_focal_loss(x, target, 2.0, 0.25, weight, "sum"), leaf, fast_mode=True
    )


@HALVES
def test_sigmoid_in_half_precision(dtype):
    narrow = logits(dtype).requires_grad_()
    wide = narrow.detach().float().requires_grad_()
    output = sigmoid_focal_loss(narrow, TARGET, 2.0, 0.25, None, "none")
    expected = sigmoid_focal_loss(wide, TARGET, 2.0, 0.25, None, "none")
    assert output.dtype == dtype
    assert torch.equal(output, expected.to(dtype))
    output.sum().backward()
    expected.sum().backward()
    assert torch.equal(narrow.grad, wide.grad.to(dtype))


@HALVES
def test_softmax_in_half_precision(dtype):
    """mmcv takes the softmax in half precision before the operator: that is its error."""
    target = TARGET.where(TARGET < CLASSES, 0)
    output = softmax_focal_loss(logits(dtype), target, 2.0, 0.25, None, "none")
    expected = softmax_focal_loss(logits(dtype).float(), target, 2.0, 0.25, None, "none")
    assert output.dtype == dtype
    eps = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(output.float(), expected, rtol=eps, atol=eps)


@pytest.mark.parametrize("loss", [sigmoid_focal_loss, softmax_focal_loss])
def test_no_rows_have_no_loss(loss):
    leaf = torch.zeros(0, CLASSES, requires_grad=True)
    target = torch.zeros(0, dtype=torch.long)
    total = loss(leaf, target, 2.0, 0.25, None, "sum")
    total.backward()
    assert total == 0 and leaf.grad.shape == (0, CLASSES)


@pytest.mark.parametrize(
    ("loss", "label"), [(sigmoid_focal_loss, CLASSES + 1), (softmax_focal_loss, CLASSES)]
)
def test_a_label_beyond_the_classes_is_refused(loss, label):
    with pytest.raises(RuntimeError, match="target must be at most"):
        loss(logits(), torch.full_like(TARGET, label), 2.0, 0.25, None, "sum")
