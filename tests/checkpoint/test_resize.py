"""Resizing of position parameters against plain interpolation of each head's image."""

import pytest
import torch
import torch.nn.functional as F

from swin_mm.checkpoint.errors import CheckpointError
from swin_mm.checkpoint.resize import resize_bias_table, resize_position_embedding


@pytest.mark.parametrize("window", [(12, 12), (4, 4), (7, 14), (1, 64)], ids=str)
def test_bias_table_is_resized_head_by_head(window):
    torch.manual_seed(0)
    table = torch.randn(13 * 13, 3)
    resized = resize_bias_table(table, window)
    rows, columns = 2 * window[0] - 1, 2 * window[1] - 1
    assert resized.shape == (rows * columns, 3)
    for head in range(3):
        image = table[:, head].reshape(1, 1, 13, 13)
        wanted = F.interpolate(image, (rows, columns), mode="bicubic", align_corners=False)
        torch.testing.assert_close(resized[:, head], wanted.flatten())


def test_rows_of_the_table_are_vertical_offsets():
    # A bias that depends on the vertical offset alone stays so.
    table = torch.arange(9.0).repeat_interleave(9)[:, None]  # window 5
    resized = resize_bias_table(table, (5, 3)).reshape(9, 5)
    torch.testing.assert_close(resized, torch.arange(9.0)[:, None].expand(9, 5))


@pytest.mark.parametrize("window", [(7, 7), (4, 13)], ids=str)
def test_a_table_of_the_right_length_is_returned_itself(window):
    table = torch.randn((2 * window[0] - 1) * (2 * window[1] - 1), 2)
    assert resize_bias_table(table, window) is table


@pytest.mark.parametrize("rows", [170, 13 * 27, 14 * 14], ids=["odd", "rectangle", "even-side"])
def test_a_table_of_unknown_window_is_refused(rows):
    with pytest.raises(CheckpointError, match=f"{rows} rows does not tell its window"):
        resize_bias_table(torch.zeros(rows, 3), (12, 12))


@pytest.mark.parametrize("size", [(6, 6), (3, 5)], ids=str)
def test_position_embedding_is_resized_channel_by_channel(size):
    torch.manual_seed(0)
    embedding = torch.randn(1, 16, 2)
    resized = resize_position_embedding(embedding, size)
    assert resized.shape == (1, size[0] * size[1], 2)
    for channel in range(2):
        image = embedding[:, :, channel].reshape(1, 1, 4, 4)
        wanted = F.interpolate(image, size, mode="bicubic", align_corners=False)
        torch.testing.assert_close(resized[0, :, channel], wanted.flatten())


def test_position_embedding_of_the_right_length_is_returned_itself():
    embedding = torch.randn(1, 15, 2)
    assert resize_position_embedding(embedding, (3, 5)) is embedding


def test_position_embedding_of_unknown_shape_is_refused():
    with pytest.raises(CheckpointError, match="15 patches does not tell its height and width"):
        resize_position_embedding(torch.zeros(1, 15, 2), (4, 4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_dtype_is_kept_and_double_precision_used(dtype):
    torch.manual_seed(0)
    table = torch.randn(81, 2, dtype=torch.float64).to(dtype)
    resized = resize_bias_table(table, (7, 7))
    assert resized.dtype == dtype
    exact = resize_bias_table(table.double(), (7, 7))
    torch.testing.assert_close(resized, exact.to(dtype))
