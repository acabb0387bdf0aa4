"""What the tests of the C++ operators share."""

from contextlib import contextmanager

import torch

from swin_mm.ops.cpp import build, linear

# Other widths of vectors than this machine's, by names that only the sources look at.
WIDTHS = {
    4: "-U__AVX512F__ -U__AVX__ -U__ARM_NEON",
    8: "-U__AVX512F__ -D__AVX__",
    16: "-D__AVX512F__",
}


@contextmanager
def vectors_of(lanes, monkeypatch):
    """Compiles for processors whose vectors have that many floats."""
    monkeypatch.setattr(build, "FLAGS", f"{build.FLAGS} {WIDTHS[lanes]}")
    forget_libraries()
    try:
        yield
    finally:
        forget_libraries()


def forget_libraries():
    for cached in (build.load_library, build.build_refusal, linear._widths):
        cached.cache_clear()


def assert_as_exact(found, usual, exact):
    """The error is at most twice that of PyTorch's operators, and one bit of the largest value."""
    for ours, stock, wanted in zip(found, usual, exact, strict=True):
        allowed = 2 * (stock - wanted).abs().max() + 1e-7 * wanted.abs().max()
        assert (ours - wanted).abs().max() <= allowed


def differentiate(function, tensors):
    """Output, and gradients to all tensors."""
    out = function(*tensors)
    weight = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out).sin()
    return [out, *torch.autograd.grad(out, tensors, weight.to(out.dtype))]
