"""`ms_deform_attn`: attention to a few learned places on feature maps of several scales."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from swin_mm.compat.mmcv_ext.tensors import add_gradients, widen


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Any,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Weighted sum `(B, Q, nH * D)` of the values at the sampled places.

    Args:
        value: `(B, K, nH, D)`, the cells of all levels, level after level.
        value_spatial_shapes: `(L, 2)` int64, rows and columns of each level, K in all.
        value_level_start_index, im2col_step: Unused.
        sampling_locations: `(B, Q, nH, L, P, 2)`, x and y, from 0 to 1 across the map.
        attention_weights: `(B, Q, nH, L, P)`.
    """
    output = widen(value).new_zeros(*sampling_locations.shape[:2], value.shape[2:].numel())
    for shape, *level in _levels(
        value_spatial_shapes, value, sampling_locations, attention_weights
    ):
        output += _attend(shape, *map(widen, level))
    return output.to(value.dtype)


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Any,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Gradients of `ms_deform_attn_forward`, by what their names say."""
    inputs = _levels(value_spatial_shapes, value, sampling_locations, attention_weights)
    outputs = _levels(value_spatial_shapes, grad_value, grad_sampling_loc, grad_attn_weight)
    # Level by level, as the samples of all levels at once are what takes the memory.
    for (shape, *level), (_, *grads) in zip(inputs, outputs, strict=True):
        add_gradients(partial(_attend, shape), level, grad_output, grads)


def _levels(
    shapes: Tensor, value: Tensor, locations: Tensor, weights: Tensor
) -> Iterator[tuple[Any, Tensor, Tensor, Tensor]]:
    """Yields each level's rows and columns, and its views of the three tensors."""
    start = 0
    for level, (rows, columns) in enumerate(shapes.tolist()):
        cells = value[:, start : start + rows * columns]
        yield (rows, columns), cells, locations[:, :, :, level], weights[:, :, :, level]
        start += rows * columns


def _attend(shape: tuple[int, int], value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of the values at places on one level of `shape`, `(B, Q, nH * D)`."""
    heads = value.shape[2]
    maps = value.permute(0, 2, 3, 1).flatten(0, 1).unflatten(-1, shape)  # (B*nH, D, H, W)
    grid = locations.transpose(1, 2).flatten(0, 1) * 2 - 1  # (B*nH, Q, P, 2), from -1 to 1
    samples = F.grid_sample(maps, grid, align_corners=False)  # (B*nH, D, Q, P)
    weights = weights.transpose(1, 2).flatten(0, 1).unsqueeze(1)  # (B*nH, 1, Q, P)
    output = (samples * weights).sum(-1)  # (B*nH, D, Q)
    return output.unflatten(0, (-1, heads)).permute(0, 3, 1, 2).flatten(2)
