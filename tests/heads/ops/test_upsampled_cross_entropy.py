import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from swin_mm.heads.ops.upsampled_cross_entropy import upsampled_cross_entropy


def case(shape=(3, 5, 7, 9), size=(25, 33), ignored=0.2, dtype=torch.float32):
    logits = (3 * torch.randn(shape)).to(dtype).requires_grad_()
    labels = torch.randint(0, shape[1], (shape[0], *size))
    labels[torch.rand(labels.shape) < ignored] = 255
    return logits, labels


def reference(logits, labels, align_corners=False, weight=None):
    large = F.interpolate(
        logits.double(), labels.shape[1:], mode="bilinear", align_corners=align_corners
    )
    weight = None if weight is None else weight.double()
    loss = F.cross_entropy(large, labels, weight, ignore_index=255, reduction="sum")
    correct = (large.argmax(dim=1) == labels).sum()
    (gradient,) = torch.autograd.grad(loss, logits)
    return loss, correct, gradient


def check(logits, labels, align_corners=False, weight=None, max_elements=1 << 26, rtol=1e-5):
    loss, correct = upsampled_cross_entropy(
        logits, labels, weight, 255, align_corners, max_elements
    )
    (gradient,) = torch.autograd.grad(2 * loss, logits)
    wanted_loss, wanted_correct, wanted_gradient = reference(logits, labels, align_corners, weight)
    torch.testing.assert_close(loss.double(), wanted_loss, rtol=rtol, atol=1e-5)
    assert correct == wanted_correct
    assert gradient.dtype == logits.dtype
    torch.testing.assert_close(gradient, 2 * wanted_gradient, rtol=rtol, atol=10 * rtol)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("weighted", [False, True], ids=["equal", "weighted"])
@pytest.mark.parametrize("images", [1, 2, 3])
def test_value_and_gradient_are_pytorchs(align_corners, weighted, images):
    weight = torch.rand(5) if weighted else None
    check(*case(), align_corners, weight, max_elements=images * 5 * 25 * 33)


@pytest.mark.parametrize(
    "kwargs",
    [
        dict(shape=(2, 4, 6, 5), size=(6, 5)),
        dict(shape=(2, 4, 9, 11), size=(5, 4)),
        dict(shape=(1, 150, 4, 4), size=(16, 16)),
        dict(shape=(2, 2, 1, 1), size=(7, 3)),
        dict(ignored=1.0),
        dict(ignored=0.0),
    ],
    ids=["same size", "smaller", "150 classes", "one pixel", "all ignored", "none ignored"],
)
def test_sizes_and_ignored_pixels(kwargs):
    check(*case(**kwargs))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_narrow_logits_are_compared_in_float32(dtype):
    logits, labels = case(dtype=dtype)
    loss, _ = upsampled_cross_entropy(logits, labels, ignore_index=255)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), reference(logits, labels)[0], rtol=1e-5, atol=0)
    check(logits, labels, rtol=1e-2)


def test_no_operator_that_one_block_of_a_gpu_computes():
    """`nll_loss` of rows `(N, C)` is one, which takes milliseconds for the pixels of an image."""

    class Names(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.seen = set()

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.seen.add(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    with Names() as names:
        upsampled_cross_entropy(*case(), torch.rand(5), ignore_index=255)
    assert "_log_softmax" in names.seen and not {n for n in names.seen if "nll_loss" in n}


def test_logits_in_channels_last_memory():
    logits, labels = case()
    last = logits.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    check(last, labels)


def test_autocast_changes_nothing():
    logits, labels = case()
    plain, _ = upsampled_cross_entropy(logits, labels, ignore_index=255)
    with torch.autocast("cpu", torch.bfloat16):
        mixed, _ = upsampled_cross_entropy(logits, labels, ignore_index=255)
    assert mixed == plain


def test_only_the_small_gradient_is_kept():
    logits, labels = case(shape=(4, 6, 8, 8), size=(32, 32))
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        upsampled_cross_entropy(logits, labels, ignore_index=255)
    assert [tensor.shape for tensor in saved] == [logits.shape]


def test_no_gradient_is_made_where_none_is_wanted(monkeypatch):
    logits, labels = case()
    monkeypatch.setattr("swin_mm.heads.ops.upsampled_cross_entropy._gradient", None)
    loss, _ = upsampled_cross_entropy(logits.detach(), labels, ignore_index=255)
    assert not loss.requires_grad


def test_what_is_ignored_has_no_loss_whatever_its_logits_are():
    logits, labels = case()
    labels[0] = 255
    with torch.no_grad():
        logits[0] = torch.tensor([-torch.inf, 0, 0, 0, 0])[:, None, None]
        loss, _ = upsampled_cross_entropy(logits, labels, ignore_index=255)
    assert loss.isfinite()


def test_label_that_is_no_class():
    logits, labels = case()
    labels[0, 0, 0] = 5
    with pytest.raises(IndexError, match="Target 5 is out of bounds"):
        upsampled_cross_entropy(logits, labels, ignore_index=255)


@pytest.mark.parametrize(
    ("logits", "labels"),
    [((2, 3, 4, 4), (1, 8, 8)), ((3, 4, 4), (1, 8, 8)), ((2, 3, 4, 4), (2, 1, 8, 8))],
    ids=["other batch", "no batch", "labels with channels"],
)
def test_shapes_that_disagree_are_refused(logits, labels):
    with pytest.raises(ValueError, match="of the same B, got"):
        upsampled_cross_entropy(torch.zeros(logits), torch.zeros(labels, dtype=torch.int64))
