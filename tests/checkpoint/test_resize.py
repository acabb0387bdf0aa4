"""Resizing of position parameters against plain interpolation of each head's image."""

import pytest
import torch
import torch.nn.functional as F
from timm.layers.patch_embed import resample_patch_embed
from timm.models._manipulate import adapt_input_conv

from swin_mm.checkpoint.errors import CheckpointError
from swin_mm.checkpoint.resize import (
    resize_bias_table,
    resize_patches,
    resize_position_embedding,
)


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
    with pytest.raises(CheckpointError, match=f"{rows} rows does not determine its window"):
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
    with pytest.raises(CheckpointError, match="15 patches does not determine its height and width"):
        resize_position_embedding(torch.zeros(1, 15, 2), (4, 4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_dtype_is_kept_and_double_precision_used(dtype):
    torch.manual_seed(0)
    table = torch.randn(81, 2, dtype=torch.float64).to(dtype)
    resized = resize_bias_table(table, (7, 7))
    assert resized.dtype == dtype
    exact = resize_bias_table(table.double(), (7, 7))
    torch.testing.assert_close(resized, exact.to(dtype))


@pytest.mark.parametrize("channels", [1, 2, 4, 6, 12])
def test_channels_are_fitted_as_timm_does(channels):
    torch.manual_seed(0)
    weight = torch.randn(8, 3, 4, 4)
    found = resize_patches(weight, channels, (4, 4))
    torch.testing.assert_close(found, adapt_input_conv(channels, weight))


def test_a_grey_image_gives_what_it_gave_as_colours():
    torch.manual_seed(0)
    weight, grey = torch.randn(8, 3, 4, 4), torch.randn(2, 1, 8, 8)
    wanted = F.conv2d(grey.expand(-1, 3, -1, -1), weight, stride=4)
    found = F.conv2d(grey, resize_patches(weight, 1, (4, 4)), stride=4)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("size", [(2, 2), (8, 8), (6, 3), (4, 16)], ids=str)
def test_patches_are_fitted_as_timm_does(size):
    torch.manual_seed(0)
    weight = torch.randn(8, 3, 4, 4)
    found = resize_patches(weight, 3, size)
    wanted = resample_patch_embed(weight, list(size), interpolation="bicubic", antialias=True)
    torch.testing.assert_close(found, wanted)


def test_an_enlarged_patch_gives_the_same_token():
    torch.manual_seed(0)
    weight, patch = torch.randn(8, 3, 4, 4), torch.randn(1, 3, 4, 4)
    larger = F.interpolate(patch, (8, 8), mode="bicubic", antialias=True)
    found = F.conv2d(larger, resize_patches(weight, 3, (8, 8)))
    torch.testing.assert_close(found, F.conv2d(patch, weight), atol=1e-4, rtol=1e-4)


def test_channels_and_patches_are_fitted_together():
    torch.manual_seed(0)
    weight = torch.randn(8, 3, 4, 4)
    found = resize_patches(weight, 4, (8, 8))
    torch.testing.assert_close(
        found, resize_patches(resize_patches(weight, 4, (4, 4)), 4, (8, 8)), atol=1e-5, rtol=1e-5
    )


def test_a_projection_of_the_right_shape_is_returned_itself():
    weight = torch.randn(8, 5, 4, 4)
    assert resize_patches(weight, 5, (4, 4)) is weight


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn], ids=str)
def test_projections_of_half_precision_are_fitted_in_single(dtype):
    weight = torch.randn(8, 3, 4, 4).to(dtype)
    found = resize_patches(weight, 4, (8, 8))
    assert found.dtype == dtype
    torch.testing.assert_close(found, resize_patches(weight.float(), 4, (8, 8)).to(dtype))


def test_other_channels_than_of_colours_are_refused():
    with pytest.raises(CheckpointError, match="4 input channels cannot be fitted to 3"):
        resize_patches(torch.zeros(8, 4, 4, 4), 3, (4, 4))
