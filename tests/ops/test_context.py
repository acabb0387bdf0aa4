"""Mixed-context attention against its definition, written out window by window with matrices."""

import itertools

import pytest
import torch

from swin_mm.ops.context import check_context_scales, pool_values
from swin_mm.ops.dispatch import window_attention
from swin_mm.ops.window import MASK_VALUE

HEADS, DIM = 2, 4
WIDTH = HEADS * DIM
SIZES = {
    "divisible": (6, 8),
    "one-axis": (6, 9),
    "neither-axis": (7, 10),
    "below-window": (2, 1),
    "one-window": (3, 4),
    "one-row": (1, 17),
}
WINDOW = (3, 4)


def inputs(size, num_scales, window=WINDOW, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tokens = window[0] * window[1]
    shapes = [
        (batch, *size, 3 * WIDTH),
        (HEADS, tokens, tokens),
        (3 * WIDTH,),
        (HEADS, DIM, num_scales * DIM),
    ]
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
        for shape in shapes
    ]


def attend(tensors, scales, backend="auto", window=WINDOW, shift=(0, 0), scale=0.5, **arguments):
    return window_attention(
        *tensors[:3],
        num_heads=HEADS,
        window_size=window,
        shift_size=shift,
        scale=scale,
        context_mix=tensors[3] if scales else None,
        context_scales=scales,
        backend=backend,
        **arguments,
    )


def cells_of_windows(size, window, shift):
    """For each window of the grid, by row and column, where its tokens are in the padded map.

    A token is `(row, column)`; it is of the map where these are within `size`.
    """
    padded = [-(-side // w) * w for side, w in zip(size, window, strict=True)]
    grid = {}
    for i, j in itertools.product(range(padded[0] // window[0]), range(padded[1] // window[1])):
        grid[i, j] = [
            (
                (i * window[0] + row + shift[0]) % padded[0],
                (j * window[1] + column + shift[1]) % padded[1],
            )
            for row, column in itertools.product(range(window[0]), range(window[1]))
        ]
    return grid, padded


def by_definition(tensors, scales, size, window, shift, scale):
    """`A Z V + M [v̄ ; ...]` for each image, window and head; `M` is `[I, 0, ...]` plus the mix."""
    qkv, bias, pad_token, mix = tensors
    grid, padded = cells_of_windows(size, window, shift)
    tokens = window[0] * window[1]
    centre = torch.eye(tokens).double() - 1 / tokens
    identity = torch.eye(DIM, len(scales) * DIM).double()
    position = scales.index("window")
    identity = identity.roll(position * DIM, dims=1)  # on the window's own mean

    def region(cell):  # wrapped-around rows and columns are apart from the others in a window
        return [
            0 if i < p - w else 1 if i < p - w + s else 2
            for i, p, w, s in zip(
                [(c - s) % p for c, s, p in zip(cell, shift, padded, strict=True)],
                padded,
                window,
                [w - s for w, s in zip(window, shift, strict=True)],
                strict=True,
            )
        ]

    out = torch.zeros(len(qkv), *size, WIDTH).double()
    out = list(out.flatten(0, 2).unbind(0))  # one tensor a token, so that gradients flow
    for b, (place, cells) in itertools.product(range(len(qkv)), grid.items()):

        def token(cell, b=b):
            is_real = cell[0] < size[0] and cell[1] < size[1]
            return (qkv[b, cell[0], cell[1]] if is_real else pad_token).reshape(3, HEADS, DIM)

        def real_mean(places, head):
            real = [c for p in places for c in grid[p] if c[0] < size[0] and c[1] < size[1]]
            return torch.stack([token(cell)[2, head] for cell in real]).mean(0)

        mask = torch.tensor(
            [[0.0 if region(a) == region(c) else MASK_VALUE for c in cells] for a in cells]
        )
        for head in range(HEADS):
            q, k, v = torch.stack([token(cell) for cell in cells], dim=1)[:, :, head]  # (N, D)
            weights = (scale * q @ k.T + bias[head] + mask).softmax(-1)
            means = []
            for s in scales:
                if s == "window":
                    means.append(v.mean(0))
                elif s == "global":
                    means.append(real_mean(grid, head))
                else:
                    near = [p for p in grid if p[0] // s == place[0] // s]
                    near = [p for p in near if p[1] // s == place[1] // s]
                    means.append(real_mean(near, head))
            low = (identity + mix[head]) @ torch.cat(means)
            result = weights @ centre @ v + low
            for cell, row in zip(cells, result, strict=True):
                if cell[0] < size[0] and cell[1] < size[1]:
                    index = (b * size[0] + cell[0]) * size[1] + cell[1]
                    before, after = out[index][: head * DIM], out[index][(head + 1) * DIM :]
                    out[index] = torch.cat([before, row, after])
    return torch.stack(out).reshape(len(qkv), *size, WIDTH)


SCALES = [("window",), ("window", "global"), ("global", 2, "window"), ("window", 2, 3, "global")]


@pytest.mark.parametrize("shift", [(0, 0), (1, 2)], ids=["plain", "shifted"])
@pytest.mark.parametrize("scales", SCALES, ids=str)
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_values_and_gradients_are_those_of_the_definition(size, scales, shift):
    tensors = inputs(size, len(scales))
    expected = by_definition(tensors, scales, size, WINDOW, shift, scale=0.5)
    direction = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).double()
    wanted = torch.autograd.grad(expected, tensors, direction, materialize_grads=True)
    for backend in ("sdpa", "reference"):
        found = attend(tensors, scales, backend, shift=shift)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
        grads = torch.autograd.grad(found, tensors, direction)
        for grad, expected_grad in zip(grads, wanted, strict=True):
            torch.testing.assert_close(grad, expected_grad, rtol=1e-8, atol=1e-8)


def test_without_the_window_scale_context_is_added():
    tensors = inputs((7, 10), 1)
    means = tensors[0][..., 2 * WIDTH :].mean((1, 2)).unflatten(-1, (HEADS, DIM))  # (B, nH, D)
    added = torch.einsum("hde,bhe->bhd", tensors[3], means).flatten(1)[:, None, None]
    expected = attend(tensors, ()) + added
    torch.testing.assert_close(attend(tensors, ("global",)), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("backend", ["sdpa", "reference"])
def test_zeros_leave_plain_attention_to_the_bit(backend, dtype):
    """Outputs, and the gradients of all that plain attention has."""
    scales = ("window", 2, "global")
    tensors = [t.detach().to(dtype).requires_grad_() for t in inputs((7, 10), 3)]
    tensors[3].data.zero_()
    results = []
    for used in (scales, ()):
        out = attend(tensors, used, backend, shift=(1, 2))
        assert out.dtype == dtype
        direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
        results.append((out, *torch.autograd.grad(out, tensors[:3], direction)))
    for mixed, plain in zip(*results, strict=True):
        assert torch.equal(mixed, plain)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_means_are_precise_in_half_precision(dtype):
    """Thousands of tokens far from zero: a sum in half precision would stall or overflow."""
    generator = torch.Generator().manual_seed(0)
    values = (300 + torch.randn(4 * 9, HEADS, 576, DIM, generator=generator)).to(dtype)
    scales = ("window", 2, "global")
    found = pool_values(values, scales, (71, 70), (24, 24), (0, 0))
    expected = pool_values(values.double(), scales, (71, 70), (24, 24), (0, 0))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=0)


def test_one_dimensional_windows_of_a_sequence():
    """512 tokens of width 768 as a map of one row in 8 windows of 64, by the formula."""
    generator = torch.Generator().manual_seed(0)
    heads, dim = 12, 64
    qkv = torch.randn(2, 1, 512, 3 * 768, generator=generator, dtype=torch.float64)
    bias = torch.randn(heads, 64, 64, generator=generator, dtype=torch.float64)
    mix = 0.1 * torch.randn(heads, dim, 2 * dim, generator=generator, dtype=torch.float64)
    found = window_attention(
        qkv,
        bias,
        num_heads=heads,
        window_size=(1, 64),
        scale=dim**-0.5,
        context_mix=mix,
        context_scales=("window", "global"),
    )
    q, k, v = qkv.reshape(2, 8, 64, 3, heads, dim).permute(3, 0, 1, 4, 2, 5)  # (B, nW, nH, N, D)
    weights = (dim**-0.5 * q @ k.mT + bias).softmax(-1)
    centre = torch.eye(64).double() - 1 / 64
    window_mean = v.mean(3, keepdim=True)
    global_mean = v.mean((1, 3), keepdim=True).expand_as(window_mean)
    means = torch.cat([window_mean, global_mean], dim=-1)
    identity = torch.cat([torch.eye(dim), torch.zeros(dim, dim)], dim=1).double()
    expected = weights @ centre @ v + means @ (identity + mix).mT  # (B, nW, nH, N, D)
    expected = expected.permute(0, 1, 3, 2, 4).reshape(2, 1, 512, 768)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        (("window", "image"), "context_scales must list 'window', 'global' or ints"),
        ((1,), "ints k of at least 2"),
        ((True,), "ints k of at least 2"),
        ((2.0,), "ints k of at least 2"),
        ("window", "such as .'window', 2, 'global'.; got 'window'"),
        (("global", "global"), r"name each scale once, got \('global', 'global'\)"),
    ],
    ids=str,
)
def test_unknown_scales_are_refused(scales, message):
    with pytest.raises(ValueError, match=message):
        check_context_scales(scales)


@pytest.mark.parametrize(
    ("scales", "mix", "message"),
    [
        (("window",), None, r"context_mix must be \(2, 4, 4\) for .* got None"),
        ((), torch.zeros(2, 4, 4), r"context_mix must be None for .* got \(2, 4, 4\)"),
        (("window", 2), torch.zeros(2, 4, 4), r"must be \(2, 4, 8\) .* got \(2, 4, 4\)"),
    ],
    ids=["none", "without-scales", "other-number"],
)
def test_a_mix_of_another_shape_is_refused(scales, mix, message):
    qkv, bias, pad_token, _ = inputs((6, 8), 1)
    with pytest.raises(ValueError, match=message):
        window_attention(
            qkv,
            bias,
            pad_token,
            num_heads=HEADS,
            window_size=WINDOW,
            scale=1.0,
            context_mix=mix,
            context_scales=scales,
        )
