"""Kernels for windows that fit in one tile: a program attends to one head of several windows.

Forward, for each window and head: `softmax(scale * q kᵀ + bias + mask) v`. Backward recomputes the
softmax from query, key and value, so forward saves nothing. Both read the projection and write
their results at each token's own position in the map: padding, shift, partition, mask and bias
cost no pass over memory.

Inputs and outputs are float32, float16 or bfloat16, products accumulate in float32, and softmax is
float32. Gradients that several windows share, of bias and padded token, are summed in registers
over a program's windows, in a fixed order, and leave as one float32 partial for each program.
"""

import triton
import triton.language as tl

from swin_mm.ops.triton.tile import (
    exponential,
    load_bias,
    load_head,
    load_key_value,
    locate,
    score,
    store_head,
)

# Sizes that change from image to image: no new kernel for one that is 1 or a multiple of 16.
CHANGING = ["num_windows", "num_programs", "height", "width"]


@triton.jit(do_not_specialize=CHANGING)
def forward_kernel(
    qkv_ptr,  # (B, H, W, 3*C)
    bias_ptr,  # (nH, N, N)
    pad_ptr,  # (3*C,)
    out_ptr,  # (B, H, W, C)
    strides,  # of images, rows and columns of `qkv`
    num_windows,  # B*nW
    num_programs,  # for each head
    height,
    width,
    scale,
    NUM_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    WINDOW: tl.constexpr,  # (Wh, Ww, Sh, Sw)
    FILLS_PADDING: tl.constexpr,
    DOT_DTYPE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    NUM_TOKENS: tl.constexpr = WINDOW[0] * WINDOW[1]
    CHANNELS: tl.constexpr = NUM_HEADS * HEAD_DIM
    IS_SHIFTED: tl.constexpr = WINDOW[2] + WINDOW[3] > 0
    head = tl.program_id(0) % NUM_HEADS
    place = tl.arange(0, BLOCK)
    dim = tl.arange(0, BLOCK_D)
    q_ptr = qkv_ptr + head * HEAD_DIM
    pad_ptr += head * HEAD_DIM
    out_ptr += head * HEAD_DIM
    bias = load_bias(bias_ptr + head * NUM_TOKENS * NUM_TOKENS, place, place, NUM_TOKENS)
    for index in tl.range(tl.program_id(0) // NUM_HEADS, num_windows, num_programs):
        offset, number, is_token, region = locate(index, place, strides, height, width, WINDOW)
        q = load_head(q_ptr, offset, is_token, dim, HEAD_DIM, DOT_DTYPE)
        k, v = load_key_value(
            q_ptr, pad_ptr, offset, is_token, dim, CHANNELS, HEAD_DIM, FILLS_PADDING, DOT_DTYPE
        )
        scores = score(q, k, bias, region, region, scale, IS_SHIFTED, PRECISION)
        weights = exponential(scores - tl.max(scores, 1)[:, None])
        total = tl.sum(weights, 1)
        out = tl.dot(weights.to(DOT_DTYPE), v, input_precision=PRECISION) / total[:, None]
        store_head(out_ptr, number * CHANNELS, is_token, dim, out, HEAD_DIM)


@triton.jit(do_not_specialize=CHANGING)
def backward_kernel(
    qkv_ptr,  # (B, H, W, 3*C)
    bias_ptr,  # (nH, N, N)
    pad_ptr,  # (3*C,)
    grad_out_ptr,  # (B, H, W, C)
    grad_qkv_ptr,  # (B, H, W, 3*C)
    grad_bias_ptr,  # (P, nH, N, N), partial sums of P programs
    grad_pad_ptr,  # (P, 3, nH, D), partial sums; those of the query stay as they are
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
    BLOCK: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    NUM_TOKENS: tl.constexpr = WINDOW[0] * WINDOW[1]
    CHANNELS: tl.constexpr = NUM_HEADS * HEAD_DIM
    IS_SHIFTED: tl.constexpr = WINDOW[2] + WINDOW[3] > 0
    head = tl.program_id(0) % NUM_HEADS
    program = tl.program_id(0) // NUM_HEADS
    place = tl.arange(0, BLOCK)
    dim = tl.arange(0, BLOCK_D)
    q_ptr = qkv_ptr + head * HEAD_DIM
    pad_ptr += head * HEAD_DIM
    grad_out_ptr += head * HEAD_DIM
    grad_q_ptr = grad_qkv_ptr + head * HEAD_DIM
    bias = load_bias(bias_ptr + head * NUM_TOKENS * NUM_TOKENS, place, place, NUM_TOKENS)
    grad_bias = tl.zeros((BLOCK, BLOCK), tl.float32)
    grad_pad_k = tl.zeros((BLOCK_D,), tl.float32)
    grad_pad_v = tl.zeros((BLOCK_D,), tl.float32)
    for index in tl.range(program, num_windows, num_programs):
        offset, number, is_token, region = locate(index, place, strides, height, width, WINDOW)
        q = load_head(q_ptr, offset, is_token, dim, HEAD_DIM, DOT_DTYPE)
        k, v = load_key_value(
            q_ptr, pad_ptr, offset, is_token, dim, CHANNELS, HEAD_DIM, FILLS_PADDING, DOT_DTYPE
        )
        # Padding has no gradient as a query: its output is dropped.
        grad_out = load_head(grad_out_ptr, number * CHANNELS, is_token, dim, HEAD_DIM, DOT_DTYPE)
        scores = score(q, k, bias, region, region, scale, IS_SHIFTED, PRECISION)
        weights = exponential(scores - tl.max(scores, 1)[:, None])
        weights = weights / tl.sum(weights, 1)[:, None]
        grad_v = tl.dot(tl.trans(weights.to(DOT_DTYPE)), grad_out, input_precision=PRECISION)
        grad_weights = tl.dot(grad_out, tl.trans(v), input_precision=PRECISION)
        mean = tl.sum(weights * grad_weights, 1)
        grad_scores = weights * (grad_weights - mean[:, None])
        grad_bias += grad_scores
        narrow = grad_scores.to(DOT_DTYPE)
        grad_q = tl.dot(narrow, k, input_precision=PRECISION) * scale
        grad_k = tl.dot(tl.trans(narrow), q, input_precision=PRECISION) * scale
        grad_offset = number * (3 * CHANNELS)
        store_head(grad_q_ptr, grad_offset, is_token, dim, grad_q, HEAD_DIM)
        store_head(grad_q_ptr + CHANNELS, grad_offset, is_token, dim, grad_k, HEAD_DIM)
        store_head(grad_q_ptr + 2 * CHANNELS, grad_offset, is_token, dim, grad_v, HEAD_DIM)
        if FILLS_PADDING:
            grad_pad_k += tl.sum(tl.where(is_token[:, None], 0.0, grad_k), 0)
            grad_pad_v += tl.sum(tl.where(is_token[:, None], 0.0, grad_v), 0)
    partial = program.to(tl.int64) * NUM_HEADS + head
    is_pair = (place < NUM_TOKENS)[:, None] & (place < NUM_TOKENS)[None, :]
    pair = place[:, None] * NUM_TOKENS + place[None, :]
    grad_bias_ptr += partial * (NUM_TOKENS * NUM_TOKENS)
    tl.store(grad_bias_ptr + pair, grad_bias, mask=is_pair)
    if FILLS_PADDING:
        grad_pad_ptr += program.to(tl.int64) * (3 * CHANNELS) + head * HEAD_DIM + dim
        tl.store(grad_pad_ptr + CHANNELS, grad_pad_k, mask=dim < HEAD_DIM)
        tl.store(grad_pad_ptr + 2 * CHANNELS, grad_pad_v, mask=dim < HEAD_DIM)
