"""The operators of `operators` as graphs of standard ONNX operators (opset 18).

Functions take and return values of a graph, with the arguments of the operator that they
translate; shapes in comments are those at run time. Sizes are 1-D tensors of one number.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
from onnxscript import opset18

from swin_mm.export import operators
from swin_mm.ops.window import MASK_VALUE

op: Any = opset18
Value = Any  # of a graph; the class depends on the version of onnxscript


def _ints(*values: int) -> Value:
    return op.Constant(value_ints=list(values))


def _scalar(size: Value) -> Value:
    return op.Squeeze(size, _ints(0))


def _size(x: Value, axis: int) -> Value:
    return op.Shape(x, start=axis, end=axis + 1)


def _arange(size: Value) -> Value:
    zero, one = op.Constant(value_int=0), op.Constant(value_int=1)
    return op.Range(zero, _scalar(size), one)


class _Axis:
    """Windows along one axis: `count` of them, of `win` tokens, on `size` tokens of a map."""

    def __init__(self, size: Value, win: int, shift: int) -> None:
        self.size, self.win, self.shift = size, win, shift
        self.count = op.Div(op.Add(size, _ints(win - 1)), _ints(win))
        self.padded = op.Mul(self.count, _ints(win))

    def source(self) -> Value:
        """Of each place the token that is there, `(count * win,)`; `size` or more for padding."""
        index = _arange(self.padded)
        if not self.shift:
            return index
        index = op.Add(index, _ints(self.shift))
        return op.Where(op.Less(index, self.padded), index, op.Sub(index, self.padded))

    def place(self) -> tuple[Value, Value]:
        """Of each token its window, and its number there; `(size,)` each."""
        index = _arange(self.size)
        if self.shift:
            index = op.Sub(index, _ints(self.shift))
            index = op.Where(op.Less(index, _ints(0)), op.Add(index, self.padded), index)
        window = op.Div(index, _ints(self.win))
        return window, op.Sub(index, op.Mul(window, _ints(self.win)))

    def regions(self) -> Value:
        """Of each place the number of its region, `(count * win,)`; see `region_ids`."""
        index = _arange(self.padded)
        if not self.shift:
            return op.Mul(index, _ints(0))
        is_last = op.GreaterOrEqual(index, op.Sub(self.padded, _ints(self.win)))
        has_wrapped = op.GreaterOrEqual(index, op.Sub(self.padded, _ints(self.shift)))
        return op.Add(op.Cast(is_last, to=7), op.Cast(has_wrapped, to=7))


class _Windows:
    """The windows of a map `(B, H, W, C)`; see `swin_mm.ops.window`."""

    def __init__(self, x: Value, window_size: Sequence[int], shift_size: Sequence[int]) -> None:
        self.batch = _size(x, 0)
        self.rows = _Axis(_size(x, 1), window_size[0], shift_size[0])
        self.columns = _Axis(_size(x, 2), window_size[1], shift_size[1])
        self.num_tokens = prod(window_size)
        self.count = op.Mul(self.rows.count, self.columns.count)
        self.area = op.Mul(self.rows.size, self.columns.size)

    def join(self, row: Value, column: Value, combine: Callable[[Value, Value], Value]) -> Value:
        """Values of rows and columns, combined for each place by windows, `(nW*N,)`."""
        rows, columns = self.rows, self.columns
        one, win_h, win_w = _ints(1), _ints(rows.win), _ints(columns.win)
        row = op.Reshape(row, op.Concat(rows.count, one, win_h, one, axis=0))
        column = op.Reshape(column, op.Concat(one, columns.count, one, win_w, axis=0))
        return op.Reshape(combine(row, column), _ints(-1))

    def source(self) -> Value:
        """Of each place its token, `(nW*N,)`; `H*W` for padding."""
        rows, columns = self.rows, self.columns

        def combine(row: Value, column: Value) -> Value:
            is_token = op.And(op.Less(row, rows.size), op.Less(column, columns.size))
            return op.Where(is_token, op.Add(op.Mul(row, columns.size), column), self.area)

        return self.join(rows.source(), columns.source(), combine)

    def partition(self, x: Value, fill: Value | None, channels: int) -> Value:
        """`(B, H, W, C)` to `(B, nW*N, C)`; padding is `fill`, `(C,)`, or zeros."""
        tokens = op.Reshape(x, op.Concat(self.batch, self.area, _ints(channels), axis=0))
        if fill is None:
            fill = op.Constant(value=_tensor(np.zeros(channels, np.float32)))
        row = op.Expand(fill, op.Concat(self.batch, _ints(1), _ints(channels), axis=0))
        return op.Gather(op.Concat(tokens, row, axis=1), self.source(), axis=1)

    def reverse(self, windows: Value, channels: int) -> Value:
        """`(..., N, C)` by windows to `(B, H, W, C)`."""
        rows, columns = self.rows, self.columns
        shape = op.Concat(
            self.batch, op.Mul(self.count, _ints(self.num_tokens)), _ints(channels), axis=0
        )
        (row, inner_row), (column, inner_column) = rows.place(), columns.place()
        row, inner_row = (op.Unsqueeze(t, _ints(1)) for t in (row, inner_row))
        window = op.Add(op.Mul(row, columns.count), column)
        inside = op.Add(op.Mul(inner_row, _ints(columns.win)), inner_column)
        place = op.Add(op.Mul(window, _ints(self.num_tokens)), inside)
        place = op.Reshape(place, _ints(-1))
        tokens = op.Gather(op.Reshape(windows, shape), place, axis=1)
        shape = op.Concat(self.batch, rows.size, columns.size, _ints(channels), axis=0)
        return op.Reshape(tokens, shape)

    def mask(self) -> Value:
        """`(nW, 1, N, N)`; see `shift_mask`."""
        ids = self.join(
            self.rows.regions(),
            op.Mul(self.columns.regions(), _ints(3)),
            lambda row, column: op.Add(row, column),
        )
        ids = op.Reshape(ids, _ints(-1, 1, self.num_tokens, 1))
        same = op.Equal(ids, op.Transpose(ids, perm=[0, 1, 3, 2]))
        return op.Where(same, _float(0.0), _float(MASK_VALUE))


def _tensor(values: np.ndarray) -> Value:
    import onnx

    return onnx.numpy_helper.from_array(values)


def _float(value: float) -> Value:
    return op.Constant(value_float=float(value))


def window_attention(
    qkv: Value,
    bias: Value,
    pad_token: Value | None,
    num_heads: int,
    window_size: Sequence[int],
    shift_size: Sequence[int],
    scale: float,
) -> Value:
    channels = int(qkv.shape[3])
    head_dim = channels // (3 * num_heads)
    windows = _Windows(qkv, window_size, shift_size)
    tokens = windows.num_tokens
    x = windows.partition(qkv, pad_token, channels)
    x = op.Reshape(x, _ints(-1, tokens, 3, num_heads, head_dim))
    q, k, v = (op.Gather(x, op.Constant(value_int=i), axis=2) for i in range(3))
    q = op.Mul(op.Transpose(q, perm=[0, 2, 1, 3]), _float(scale))
    k, v = op.Transpose(k, perm=[0, 2, 3, 1]), op.Transpose(v, perm=[0, 2, 1, 3])
    scores = op.Add(op.MatMul(q, k), bias)  # (B*nW, nH, N, N)
    if any(shift_size):
        shape = op.Concat(_ints(-1), windows.count, _ints(num_heads, tokens, tokens), axis=0)
        scores = op.Add(op.Reshape(scores, shape), windows.mask())
        scores = op.Reshape(scores, _ints(-1, num_heads, tokens, tokens))
    out = op.MatMul(op.Softmax(scores, axis=-1), v)  # (B*nW, nH, N, D)
    return windows.reverse(op.Transpose(out, perm=[0, 2, 1, 3]), channels // 3)


def window_context(
    qkv: Value,
    context_mix: Value,
    pad_token: Value | None,
    num_heads: int,
    window_size: Sequence[int],
    shift_size: Sequence[int],
    scales: Sequence[int],
) -> Value:
    channels = int(qkv.shape[3]) // 3
    head_dim = channels // num_heads
    windows = _Windows(qkv, window_size, shift_size)
    values = op.Slice(qkv, _ints(2 * channels), _ints(3 * channels), _ints(3))
    means = []
    for scale in scales:
        if scale == operators.CONTEXT_SCALES["global"]:
            mean = op.ReduceMean(values, _ints(1, 2), keepdims=1)  # (B, 1, 1, C)
            mean = op.Reshape(mean, _ints(0, 1, channels))
        elif scale == operators.CONTEXT_SCALES["window"]:
            fill = None
            if pad_token is not None:
                fill = op.Slice(pad_token, _ints(2 * channels), _ints(3 * channels), _ints(0))
            places = windows.partition(values, fill, channels)
            mean = op.ReduceMean(_by_window(places, windows, channels), _ints(2), keepdims=0)
        else:
            mean = _group_means(values, windows, scale, channels)
        shape = op.Concat(windows.batch, windows.count, _ints(num_heads, head_dim), axis=0)
        mean = op.Expand(mean, op.Concat(windows.batch, windows.count, _ints(channels), axis=0))
        means.append(op.Reshape(mean, shape))  # (B, nW, nH, D)
    joined = op.Unsqueeze(op.Concat(*means, axis=-1), _ints(3))  # (B, nW, nH, 1, S*D)
    mixed = op.MatMul(joined, op.Transpose(context_mix, perm=[0, 2, 1]))  # (B, nW, nH, 1, D)
    shape = op.Concat(windows.batch, windows.count, _ints(1, channels), axis=0)
    shape_all = op.Concat(windows.batch, windows.count, _ints(windows.num_tokens, channels), axis=0)
    return windows.reverse(op.Expand(op.Reshape(mixed, shape), shape_all), channels)


def _by_window(places: Value, windows: _Windows, channels: int) -> Value:
    shape = op.Concat(windows.batch, windows.count, _ints(windows.num_tokens, channels), axis=0)
    return op.Reshape(places, shape)  # (B, nW, N, C)


def _group_means(values: Value, windows: _Windows, k: int, channels: int) -> Value:
    """Means over the tokens of `k x k` windows, given to each window, `(B, nW, C)`."""
    sums = op.ReduceSum(
        _by_window(windows.partition(values, None, channels), windows, channels),
        _ints(2),
        keepdims=0,
    )  # (B, nW, C)
    is_token = op.Cast(op.Less(windows.source(), windows.area), to=1)
    counts = op.ReduceSum(
        op.Reshape(is_token, _ints(1, -1, windows.num_tokens, 1)), _ints(2), keepdims=0
    )  # (1, nW, 1)
    group = _Axis(windows.rows.count, k, 0), _Axis(windows.columns.count, k, 0)
    means = op.Div(
        _sum_groups(sums, windows, group, k, channels), _sum_groups(counts, windows, group, k, 1)
    )  # (B, rows, columns, C)
    for axis, part in enumerate(group):
        means = op.Gather(means, op.Div(_arange(part.size), _ints(k)), axis=axis + 1)
    return op.Reshape(means, op.Concat(windows.batch, _ints(-1, channels), axis=0))


def _sum_groups(
    x: Value, windows: _Windows, group: tuple[_Axis, _Axis], k: int, channels: int
) -> Value:
    """Sums `(B, nW, C)` over `k x k` windows."""
    rows, columns = group
    shape = op.Concat(_ints(-1), rows.size, columns.size, _ints(channels), axis=0)
    zero = _ints(0)
    missing = op.Concat(
        *(zero,) * 5,
        op.Sub(rows.padded, rows.size),
        op.Sub(columns.padded, columns.size),
        zero,
        axis=0,
    )
    x = op.Pad(op.Reshape(x, shape), missing)
    shape = op.Concat(
        _ints(-1), rows.count, _ints(k), columns.count, _ints(k), _ints(channels), axis=0
    )
    return op.ReduceSum(op.Reshape(x, shape), _ints(2, 4), keepdims=0)


def suppress(
    boxes: Value, scores: Value, iou_threshold: float, score_threshold: float, max_boxes: int
) -> Value:
    selected = op.NonMaxSuppression(
        boxes, scores, _ints(max_boxes), _floats(iou_threshold), _floats(score_threshold)
    )  # (M, 3)
    zeros = op.Expand(_float(0.0), op.Shape(scores))
    return op.ScatterND(zeros, selected, op.GatherND(scores, selected))


def _floats(value: float) -> Value:
    return op.Constant(value_floats=[float(value)])


def pool_rois(
    maps: Sequence[Value],
    boxes: Value,
    levels: Value,
    scales: Sequence[float],
    output_size: Sequence[int],
    sampling_ratio: int,
    aligned: bool,
) -> Value:
    num_boxes = _size(boxes, 1)
    rois, levels = op.Reshape(boxes, _ints(-1, 4)), op.Reshape(levels, _ints(-1))
    pooled: list[Value] = []
    places: list[Value] = []
    for level, (features, scale) in enumerate(zip(maps, scales, strict=True)):
        index = op.Reshape(op.NonZero(op.Equal(levels, _ints(level))), _ints(-1))
        places.append(index)
        pooled.append(
            op.RoiAlign(
                features,
                op.Gather(rois, index),
                op.Div(index, num_boxes),
                coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
                output_height=output_size[0],
                output_width=output_size[1],
                sampling_ratio=sampling_ratio,
                spatial_scale=float(scale),
            )
        )
    if len(maps) == 1:
        return pooled[0]
    features = op.Concat(*pooled, axis=0)
    order = op.Unsqueeze(op.Concat(*places, axis=0), _ints(1))
    return op.ScatterND(op.Mul(features, _float(0.0)), order, features)


def resize_to(x: Value, size: Value, align_corners: bool) -> Value:
    shape = op.Concat(op.Shape(x, start=0, end=2), size, axis=0)
    places = "align_corners" if align_corners else "half_pixel"
    return op.Resize(x, None, None, shape, mode="linear", coordinate_transformation_mode=places)


TRANSLATIONS: dict[Any, Callable[..., Any]] = {
    operators.window_attention._opoverload: window_attention,
    operators.window_context._opoverload: window_context,
    operators.suppress._opoverload: suppress,
    operators.pool_rois._opoverload: pool_rois,
    operators.resize_to._opoverload: resize_to,
}
