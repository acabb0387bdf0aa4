"""What operators do in half precision: compute in float32, and round once, in both directions."""

import pytest
import torch

HALVES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)


def assert_rounds_once(function, leaves, dtype, rtol=None):
    """Output and gradients are the float32 ones, rounded; `rtol` is of gradients, by default 0."""
    narrow = [t.detach().to(dtype).requires_grad_() for t in leaves]
    wide = [t.detach().float().requires_grad_() for t in narrow]
    output, expected = function(*narrow), function(*wide)
    assert output.dtype == dtype
    assert torch.equal(output, expected.to(dtype))
    direction = torch.randn_like(output)
    grads = torch.autograd.grad(output, narrow, direction)
    wanted = torch.autograd.grad(expected, wide, direction.float())
    for grad, want in zip(grads, wanted, strict=True):
        assert grad.dtype == dtype
        atol = 0 if rtol is None else max(1e-5, rtol)
        torch.testing.assert_close(grad, want.to(dtype), rtol=rtol or 0, atol=atol)
