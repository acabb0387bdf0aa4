"""What the window attention kernels share: where a token of a window lies, and its scores."""

import triton
import triton.language as tl

from swin_mm.ops.window import MASK_VALUE as _MASK_VALUE

# `exp2` is one instruction. Scores stay in their own units until the highest is taken off: large
# ones would be rounded again by the factor.
LOG2_E = tl.constexpr(1.4426950408889634)
MASK_VALUE = tl.constexpr(_MASK_VALUE)


@triton.jit
def locate(
    index,  # of the window among the B*nW of the batch
    place,  # (BLOCK,), within the window, row-major; places from N on are no tokens
    strides,  # of images, rows and columns
    height,
    width,
    WINDOW: tl.constexpr,  # (Wh, Ww, Sh, Sw)
):
    """Where the tokens of a window of the padded, shifted map lie in the map itself.

    Returns, each `(BLOCK,)`: offset of the token's first element in a map of the given strides; its
    number in row-major order; whether there is a token (not padding); and its region. Tokens that
    wrapped around are in another region than those that did not: `window.region_ids` numbers more
    regions, but tells no more tokens of one window apart.
    """
    stride_b, stride_h, stride_w = strides
    WIN_H: tl.constexpr = WINDOW[0]
    WIN_W: tl.constexpr = WINDOW[1]
    windows_down, windows_across = tl.cdiv(height, WIN_H), tl.cdiv(width, WIN_W)
    # Offsets and numbers may pass 2**31.
    image = (index // (windows_down * windows_across)).to(tl.int64)
    window = index % (windows_down * windows_across)
    row = window // windows_across * WIN_H + place // WIN_W + WINDOW[2]
    column = window % windows_across * WIN_W + place % WIN_W + WINDOW[3]
    row_wraps = row >= windows_down * WIN_H
    column_wraps = column >= windows_across * WIN_W
    row = tl.where(row_wraps, row - windows_down * WIN_H, row)
    column = tl.where(column_wraps, column - windows_across * WIN_W, column)
    is_token = (place < WIN_H * WIN_W) & (row < height) & (column < width)
    region = row_wraps.to(tl.int32) * 2 + column_wraps.to(tl.int32)
    offset = image * stride_b + row.to(tl.int64) * stride_h + column.to(tl.int64) * stride_w
    number = (image * height + row) * width + column
    return offset, number, is_token, region


@triton.jit
def load_head(ptr, offset, is_token, dim, HEAD_DIM: tl.constexpr, DOT_DTYPE: tl.constexpr):
    """Channels of one head, `(BLOCK, BLOCK_D)`; zeros where there is no token."""
    mask = is_token[:, None] & (dim < HEAD_DIM)[None, :]
    return tl.load(ptr + offset[:, None] + dim[None, :], mask=mask, other=0.0).to(DOT_DTYPE)


@triton.jit
def store_head(ptr, offset, is_token, dim, value, HEAD_DIM: tl.constexpr):
    mask = is_token[:, None] & (dim < HEAD_DIM)[None, :]
    tl.store(ptr + offset[:, None] + dim[None, :], value.to(ptr.dtype.element_ty), mask=mask)


@triton.jit
def load_key_value(
    q_ptr,  # (B, H, W, 3*C), from the first channel of this head on
    pad_ptr,  # (3*C,), from the first channel of this head on
    offset,  # (BLOCK,)
    is_token,  # (BLOCK,)
    dim,  # (BLOCK_D,)
    CHANNELS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    FILLS_PADDING: tl.constexpr,
    DOT_DTYPE: tl.constexpr,
):
    """Keys and values, `(BLOCK, BLOCK_D)` each, those of padding included."""
    k = load_head(q_ptr + CHANNELS, offset, is_token, dim, HEAD_DIM, DOT_DTYPE)
    v = load_head(q_ptr + 2 * CHANNELS, offset, is_token, dim, HEAD_DIM, DOT_DTYPE)
    if FILLS_PADDING:
        is_channel = dim < HEAD_DIM
        pad_k = tl.load(pad_ptr + CHANNELS + dim, mask=is_channel, other=0.0).to(DOT_DTYPE)
        pad_v = tl.load(pad_ptr + 2 * CHANNELS + dim, mask=is_channel, other=0.0).to(DOT_DTYPE)
        k = tl.where(is_token[:, None], k, pad_k[None, :])
        v = tl.where(is_token[:, None], v, pad_v[None, :])
    return k, v


@triton.jit
def load_bias(
    bias_ptr,  # (N, N), of this head
    query,  # (BLOCK_M,), place of each query
    key,  # (BLOCK_N,), place of each key
    NUM_TOKENS: tl.constexpr,
):
    """Position bias of a tile in float32; minus infinity for keys that are no tokens."""
    is_key = (key < NUM_TOKENS)[None, :]
    is_pair = (query < NUM_TOKENS)[:, None] & is_key
    offset = query[:, None] * NUM_TOKENS + key[None, :]
    bias = tl.load(bias_ptr + offset, mask=is_pair, other=0.0).to(tl.float32)
    return tl.where(is_key, bias, float("-inf"))


@triton.jit
def score(
    q,  # (BLOCK_M, BLOCK_D)
    k,  # (BLOCK_N, BLOCK_D)
    bias,  # (BLOCK_M, BLOCK_N)
    query_region,
    key_region,
    scale,
    IS_SHIFTED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """`scale * q kᵀ + bias + mask`, in float32."""
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale + bias
    if IS_SHIFTED:
        is_apart = query_region[:, None] != key_region[None, :]
        scores += tl.where(is_apart, MASK_VALUE, 0.0)
    return scores


@triton.jit
def exponential(x):
    """`e^x`, to the two units in the last place of `exp2`."""
    return tl.exp2(x * LOG2_E)


@triton.jit
def grad_of_scores(
    scores,  # (BLOCK_M, BLOCK_N)
    top,  # (BLOCK_M,), the highest score of each query
    factor,  # (BLOCK_M,), the reciprocal of the sum of its exponentials
    mean,  # (BLOCK_M,), mean gradient of each query's weights
    grad_out,  # (BLOCK_M, BLOCK_D)
    v,  # (BLOCK_N, BLOCK_D)
    PRECISION: tl.constexpr,
):
    """Softmax weights of a tile and the gradient of its scores, in float32."""
    weights = exponential(scores - top[:, None]) * factor[:, None]
    grad_weights = tl.dot(grad_out, tl.trans(v), input_precision=PRECISION)
    return weights, weights * (grad_weights - mean[:, None])


# Whether Triton was imported under TRITON_INTERPRET=1, where kernels run on the CPU.
IS_INTERPRETED = not isinstance(locate, triton.JITFunction)
