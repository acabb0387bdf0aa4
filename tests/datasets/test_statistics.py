"""Mean and standard deviation against NumPy's over all pixels at once."""

import numpy as np
import pytest

from swin_mm.datasets.statistics import pixel_statistics


@pytest.mark.parametrize("bands", [1, 3, 12])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_equals_numpy_over_all_pixels(bands, dtype):
    random = np.random.default_rng(0)
    images = [
        (random.random((h, w, bands)) * 250 + 10 * bands).astype(dtype)
        for h, w in ((3, 5), (40, 7), (1, 1))
    ]
    found = pixel_statistics(iter(images))
    pixels = np.concatenate([i.reshape(-1, bands) for i in images]).astype(np.float64)
    assert found.images == 3
    np.testing.assert_allclose(found.mean, pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.std, pixels.std(0), rtol=1e-12)


def test_grey_images_have_one_band():
    found = pixel_statistics([np.array([[1, 3]], dtype=np.uint8)])
    assert (found.mean, found.std) == ((2.0,), (1.0,))


def test_large_values_with_little_spread_keep_their_digits():
    values = np.array([[1e9, 1e9 + 1, 1e9 + 2]])
    assert pixel_statistics([values, values]).std == pytest.approx(((2 / 3) ** 0.5,), rel=1e-9)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "at least one image"),
        ([np.zeros((2, 2, 3)), np.zeros((2, 2, 4))], "one has 4, others 3"),
        ([np.full((2, 2), np.nan)], "finite"),
    ],
    ids=["none", "bands differ", "not a number"],
)
def test_what_has_no_statistics_is_refused(images, message):
    with pytest.raises(ValueError, match=message):
        pixel_statistics(images)
