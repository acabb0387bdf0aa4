"""Kernels for windows of several tiles: softmax is computed while going through the keys.

Forward saves nothing. Backward goes through the keys first for what each query's weights need,
then recomputes the weights in three passes, each of which adds up its own part in registers: the
gradient of queries, then of keys and values, then of the bias. Programs of the last two go through
several windows and leave float32 partials of what windows share, added in a fixed order.

What a query's weights need are three numbers, its statistics: the highest score, the reciprocal of
the sum of exponentials, and the mean gradient of the weights. The logarithm of the sum would be
one number for two, but its rounding, in the units of the scores, leaves weights that do not sum
to 1; and a mean taken from the narrow output, gradients of scores that do not sum to 0. Both add up
in what lies before the bias.

Layouts, dtypes and what is fused are those of `one_tile`.
"""

import triton
import triton.language as tl

from swin_mm.ops.triton.one_tile import CHANGING
from swin_mm.ops.triton.tile import (
    exponential,
    grad_of_scores,
    load_bias,
    load_head,
    load_key_value,
    locate,
    score,
    store_head,
)


@triton.jit(do_not_specialize=CHANGING)
def forward_kernel(
    qkv_ptr,  # (B, H, W, 3*C)
    bias_ptr,  # (nH, N, N)
    pad_ptr,  # (3*C,)
    out_ptr,  # (B, H, W, C)
    strides,  # of images, rows and columns of `qkv`
    height,
    width,
    scale,
    NUM_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    WINDOW: tl.constexpr,  # (Wh, Ww, Sh, Sw)
    FILLS_PADDING: tl.constexpr,
    DOT_DTYPE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    NUM_TOKENS: tl.constexpr = WINDOW[0] * WINDOW[1]
    CHANNELS: tl.constexpr = NUM_HEADS * HEAD_DIM
    IS_SHIFTED: tl.constexpr = WINDOW[2] + WINDOW[3] > 0
    NUM_BLOCKS: tl.constexpr = (NUM_TOKENS + BLOCK_M - 1) // BLOCK_M
    pid = tl.program_id(0)
    head = pid // NUM_BLOCKS % NUM_HEADS
    index = pid // (NUM_BLOCKS * NUM_HEADS)
    query = pid % NUM_BLOCKS * BLOCK_M + tl.arange(0, BLOCK_M)
    dim = tl.arange(0, BLOCK_D)
    q_ptr = qkv_ptr + head * HEAD_DIM
    pad_ptr += head * HEAD_DIM
    bias_ptr += head * NUM_TOKENS * NUM_TOKENS
    offset, number, is_query, query_region = locate(index, query, strides, height, width, WINDOW)
    q = load_head(q_ptr, offset, is_query, dim, HEAD_DIM, DOT_DTYPE)
    highest = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    out = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    for start in tl.range(0, NUM_TOKENS, BLOCK_N):
        key = start + tl.arange(0, BLOCK_N)
        key_offset, _, is_key, key_region = locate(index, key, strides, height, width, WINDOW)
        k, v = load_key_value(
            q_ptr, pad_ptr, key_offset, is_key, dim, CHANNELS, HEAD_DIM, FILLS_PADDING, DOT_DTYPE
        )
        bias = load_bias(bias_ptr, query, key, NUM_TOKENS)
        scores = score(q, k, bias, query_region, key_region, scale, IS_SHIFTED, PRECISION)
        # Each block of keys holds a token, so the highest score is finite from the first on.
        new_highest = tl.maximum(highest, tl.max(scores, 1))
        weights = exponential(scores - new_highest[:, None])
        shrink = exponential(highest - new_highest)
        total = total * shrink + tl.sum(weights, 1)
        out = out * shrink[:, None]
        out += tl.dot(weights.to(DOT_DTYPE), v, input_precision=PRECISION)
        highest = new_highest
    out_ptr += head * HEAD_DIM
    store_head(out_ptr, number * CHANNELS, is_query, dim, out / total[:, None], HEAD_DIM)


@triton.jit
def store_stats(stats_ptr, query, top, factor, mean, NUM_TOKENS: tl.constexpr):
    """Statistics of the queries of a window and head, to `(3, N)`."""
    mask = query < NUM_TOKENS
    tl.store(stats_ptr + query, top, mask=mask)
    tl.store(stats_ptr + NUM_TOKENS + query, factor, mask=mask)
    tl.store(stats_ptr + 2 * NUM_TOKENS + query, mean, mask=mask)


@triton.jit
def load_stats(stats_ptr, query, NUM_TOKENS: tl.constexpr):
    """Those statistics; where there is no query, such that weights and gradients are 0."""
    mask = query < NUM_TOKENS
    top = tl.load(stats_ptr + query, mask=mask, other=float("inf"))
    factor = tl.load(stats_ptr + NUM_TOKENS + query, mask=mask, other=0.0)
    mean = tl.load(stats_ptr + 2 * NUM_TOKENS + query, mask=mask, other=0.0)
    return top, factor, mean


@triton.jit(do_not_specialize=CHANGING)
def grad_query_kernel(
    qkv_ptr,  # (B, H, W, 3*C)
    bias_ptr,  # (nH, N, N)
    pad_ptr,  # (3*C,)
    grad_out_ptr,  # (B, H, W, C)
    stats_ptr,  # (B*nW, nH, 3, N), written here for the other two kernels
    grad_qkv_ptr,  # (B, H, W, 3*C)
    strides,  # of images, rows and columns of `qkv`
    height,
    width,
    scale,
    NUM_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    WINDOW: tl.constexpr,  # (Wh, Ww, Sh, Sw)
    FILLS_PADDING: tl.constexpr,
    DOT_DTYPE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Takes each query's statistics before its gradient."""
    NUM_TOKENS: tl.constexpr = WINDOW[0] * WINDOW[1]
    CHANNELS: tl.constexpr = NUM_HEADS * HEAD_DIM
    IS_SHIFTED: tl.constexpr = WINDOW[2] + WINDOW[3] > 0
    NUM_BLOCKS: tl.constexpr = (NUM_TOKENS + BLOCK_M - 1) // BLOCK_M
    pid = tl.program_id(0)
    head = pid // NUM_BLOCKS % NUM_HEADS
    index = pid // (NUM_BLOCKS * NUM_HEADS)
    query = pid % NUM_BLOCKS * BLOCK_M + tl.arange(0, BLOCK_M)
    dim = tl.arange(0, BLOCK_D)
    q_ptr = qkv_ptr + head * HEAD_DIM
    pad_ptr += head * HEAD_DIM
    bias_ptr += head * NUM_TOKENS * NUM_TOKENS
    offset, number, is_query, query_region = locate(index, query, strides, height, width, WINDOW)
    q = load_head(q_ptr, offset, is_query, dim, HEAD_DIM, DOT_DTYPE)
    out_offset = number * CHANNELS + head * HEAD_DIM
    grad_out = load_head(grad_out_ptr, out_offset, is_query, dim, HEAD_DIM, DOT_DTYPE)
    top = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    mean = tl.zeros((BLOCK_M,), tl.float32)
    for start in tl.range(0, NUM_TOKENS, BLOCK_N):
        key = start + tl.arange(0, BLOCK_N)
        key_offset, _, is_key, key_region = locate(index, key, strides, height, width, WINDOW)
        k, v = load_key_value(
            q_ptr, pad_ptr, key_offset, is_key, dim, CHANNELS, HEAD_DIM, FILLS_PADDING, DOT_DTYPE
        )
        bias = load_bias(bias_ptr, query, key, NUM_TOKENS)
        scores = score(q, k, bias, query_region, key_region, scale, IS_SHIFTED, PRECISION)
        new_top = tl.maximum(top, tl.max(scores, 1))
        weights = exponential(scores - new_top[:, None])
        shrink = exponential(top - new_top)
        total = total * shrink + tl.sum(weights, 1)
        grad_weights = tl.dot(grad_out, tl.trans(v), input_precision=PRECISION)
        mean = mean * shrink + tl.sum(weights * grad_weights, 1)
        top = new_top
    factor = tl.div_rn(1.0, total)  # its error would be one of all weights of the query
    mean *= factor
    stats_ptr += (index * NUM_HEADS + head).to(tl.int64) * (3 * NUM_TOKENS)
    store_stats(stats_ptr, query, top, factor, mean, NUM_TOKENS)
    grad_q = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    for start in tl.range(0, NUM_TOKENS, BLOCK_N):
        key = start + tl.arange(0, BLOCK_N)
        key_offset, _, is_key, key_region = locate(index, key, strides, height, width, WINDOW)
        k, v = load_key_value(
            q_ptr, pad_ptr, key_offset, is_key, dim, CHANNELS, HEAD_DIM, FILLS_PADDING, DOT_DTYPE
        )
        bias = load_bias(bias_ptr, query, key, NUM_TOKENS)
        scores = score(q, k, bias, query_region, key_region, scale, IS_SHIFTED, PRECISION)
        _, grad_scores = grad_of_scores(scores, top, factor, mean, grad_out, v, PRECISION)
        grad_q += tl.dot(grad_scores.to(DOT_DTYPE), k, input_precision=PRECISION)
    grad_q_ptr = grad_qkv_ptr + head * HEAD_DIM
    store_head(grad_q_ptr, number * (3 * CHANNELS), is_query, dim, grad_q * scale, HEAD_DIM)


@triton.jit(do_not_specialize=CHANGING)
def grad_key_value_kernel(
    qkv_ptr,  # (B, H, W, 3*C)
    bias_ptr,  # (nH, N, N)
    pad_ptr,  # (3*C,)
    grad_out_ptr,  # (B, H, W, C)
    stats_ptr,  # (B*nW, nH, 3, N)
    grad_qkv_ptr,  # (B, H, W, 3*C)
    grad_pad_ptr,  # (P, blocks, 3, nH, D), partial sums; those of the query stay as they are
    strides,  # of images, rows and columns of `qkv`
    num_windows,  # B*nW
    num_programs,  # P
    height,
    width,
    scale,
    NUM_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    WINDOW: tl.constexpr,  # (Wh, Ww, Sh, Sw)
    FILLS_PADDING: tl.constexpr,
    DOT_DTYPE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    NUM_TOKENS: tl.constexpr = WINDOW[0] * WINDOW[1]
    CHANNELS: tl.constexpr = NUM_HEADS * HEAD_DIM
    IS_SHIFTED: tl.constexpr = WINDOW[2] + WINDOW[3] > 0
    NUM_BLOCKS: tl.constexpr = (NUM_TOKENS + BLOCK_N - 1) // BLOCK_N
    pid = tl.program_id(0)
    block = pid % NUM_BLOCKS
    head = pid // NUM_BLOCKS % NUM_HEADS
    program = pid // (NUM_BLOCKS * NUM_HEADS)
    key = block * BLOCK_N + tl.arange(0, BLOCK_N)
    dim = tl.arange(0, BLOCK_D)
    q_ptr = qkv_ptr + head * HEAD_DIM
    pad_ptr += head * HEAD_DIM
    grad_out_ptr += head * HEAD_DIM
    grad_q_ptr = grad_qkv_ptr + head * HEAD_DIM
    bias_ptr += head * NUM_TOKENS * NUM_TOKENS
    grad_pad_k = tl.zeros((BLOCK_D,), tl.float32)
    grad_pad_v = tl.zeros((BLOCK_D,), tl.float32)
    for index in tl.range(program, num_windows, num_programs):
        offset, number, is_key, key_region = locate(index, key, strides, height, width, WINDOW)
        k, v = load_key_value(
            q_ptr, pad_ptr, offset, is_key, dim, CHANNELS, HEAD_DIM, FILLS_PADDING, DOT_DTYPE
        )
        window_stats_ptr = stats_ptr + (index * NUM_HEADS + head).to(tl.int64) * (3 * NUM_TOKENS)
        grad_k = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
        grad_v = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
        for start in tl.range(0, NUM_TOKENS, BLOCK_M):
            query = start + tl.arange(0, BLOCK_M)
            query_offset, query_number, is_query, query_region = locate(
                index, query, strides, height, width, WINDOW
            )
            q = load_head(q_ptr, query_offset, is_query, dim, HEAD_DIM, DOT_DTYPE)
            grad_out = load_head(
                grad_out_ptr, query_number * CHANNELS, is_query, dim, HEAD_DIM, DOT_DTYPE
            )
            top, factor, mean = load_stats(window_stats_ptr, query, NUM_TOKENS)
            bias = load_bias(bias_ptr, query, key, NUM_TOKENS)
            scores = score(q, k, bias, query_region, key_region, scale, IS_SHIFTED, PRECISION)
            weights, grad_scores = grad_of_scores(scores, top, factor, mean, grad_out, v, PRECISION)
            weights = tl.trans(weights.to(DOT_DTYPE))
            grad_v += tl.dot(weights, grad_out, input_precision=PRECISION)
            narrow = tl.trans(grad_scores.to(DOT_DTYPE))
            grad_k += tl.dot(narrow, q, input_precision=PRECISION)
        grad_k *= scale
        grad_offset = number * (3 * CHANNELS)
        store_head(grad_q_ptr + CHANNELS, grad_offset, is_key, dim, grad_k, HEAD_DIM)
        store_head(grad_q_ptr + 2 * CHANNELS, grad_offset, is_key, dim, grad_v, HEAD_DIM)
        if FILLS_PADDING:
            grad_pad_k += tl.sum(tl.where(is_key[:, None], 0.0, grad_k), 0)
            grad_pad_v += tl.sum(tl.where(is_key[:, None], 0.0, grad_v), 0)
    if FILLS_PADDING:
        partial = (program.to(tl.int64) * NUM_BLOCKS + block) * (3 * CHANNELS)
        grad_pad_ptr += partial + head * HEAD_DIM + dim
        tl.store(grad_pad_ptr + CHANNELS, grad_pad_k, mask=dim < HEAD_DIM)
        tl.store(grad_pad_ptr + 2 * CHANNELS, grad_pad_v, mask=dim < HEAD_DIM)


@triton.jit(do_not_specialize=CHANGING)
def grad_bias_kernel(
    qkv_ptr,  # (B, H, W, 3*C)
    bias_ptr,  # (nH, N, N)
    pad_ptr,  # (3*C,)
    grad_out_ptr,  # (B, H, W, C)
    stats_ptr,  # (B*nW, nH, 3, N)
    grad_bias_ptr,  # (P, nH, N, N), partial sums of P programs
    strides,  # of images, rows and columns of `qkv`
    num_windows,  # B*nW
    num_programs,  # P
    height,
    width,
    scale,
    NUM_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    WINDOW: tl.constexpr,  # (Wh, Ww, Sh, Sw)
    FILLS_PADDING: tl.constexpr,
    DOT_DTYPE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    NUM_TOKENS: tl.constexpr = WINDOW[0] * WINDOW[1]
    CHANNELS: tl.constexpr = NUM_HEADS * HEAD_DIM
    IS_SHIFTED: tl.constexpr = WINDOW[2] + WINDOW[3] > 0
    BLOCKS_M: tl.constexpr = (NUM_TOKENS + BLOCK_M - 1) // BLOCK_M
    BLOCKS_N: tl.constexpr = (NUM_TOKENS + BLOCK_N - 1) // BLOCK_N
    pid = tl.program_id(0)
    key = pid % BLOCKS_N * BLOCK_N + tl.arange(0, BLOCK_N)
    query = pid // BLOCKS_N % BLOCKS_M * BLOCK_M + tl.arange(0, BLOCK_M)
    head = pid // (BLOCKS_M * BLOCKS_N) % NUM_HEADS
    program = pid // (BLOCKS_M * BLOCKS_N * NUM_HEADS)
    dim = tl.arange(0, BLOCK_D)
    q_ptr = qkv_ptr + head * HEAD_DIM
    pad_ptr += head * HEAD_DIM
    grad_out_ptr += head * HEAD_DIM
    bias_ptr += head * NUM_TOKENS * NUM_TOKENS
    bias = load_bias(bias_ptr, query, key, NUM_TOKENS)
    grad_bias = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for index in tl.range(program, num_windows, num_programs):
        offset, number, is_query, query_region = locate(
            index, query, strides, height, width, WINDOW
        )
        q = load_head(q_ptr, offset, is_query, dim, HEAD_DIM, DOT_DTYPE)
        grad_out = load_head(grad_out_ptr, number * CHANNELS, is_query, dim, HEAD_DIM, DOT_DTYPE)
        key_offset, _, is_key, key_region = locate(index, key, strides, height, width, WINDOW)
        k, v = load_key_value(
            q_ptr, pad_ptr, key_offset, is_key, dim, CHANNELS, HEAD_DIM, FILLS_PADDING, DOT_DTYPE
        )
        window_stats_ptr = stats_ptr + (index * NUM_HEADS + head).to(tl.int64) * (3 * NUM_TOKENS)
        top, factor, mean = load_stats(window_stats_ptr, query, NUM_TOKENS)
        scores = score(q, k, bias, query_region, key_region, scale, IS_SHIFTED, PRECISION)
        _, grad_scores = grad_of_scores(scores, top, factor, mean, grad_out, v, PRECISION)
        grad_bias += grad_scores
    is_pair = (query < NUM_TOKENS)[:, None] & (key < NUM_TOKENS)[None, :]
    partial = (program.to(tl.int64) * NUM_HEADS + head) * (NUM_TOKENS * NUM_TOKENS)
    pair = query[:, None] * NUM_TOKENS + key[None, :]
    tl.store(grad_bias_ptr + partial + pair, grad_bias, mask=is_pair)
