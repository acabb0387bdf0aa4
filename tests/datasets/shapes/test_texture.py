import colorsys

import numpy as np
import pytest

from swin_mm.datasets.shapes import texture
from swin_mm.datasets.shapes.bits import BitStream
from swin_mm.datasets.shapes.geometry import ONE


class Fixed:
    """Stands in for a stream of bits and gives listed numbers."""

    def __init__(self, *numbers):
        self.numbers = list(numbers)

    def below(self, limit):
        return self.numbers.pop(0)

    def between(self, low, high):
        return self.numbers.pop(0)


@pytest.mark.parametrize("hue", [0, 100, 256, 700, 1024, 1500])
@pytest.mark.parametrize(("saturation", "value"), [(255, 255), (40, 200), (0, 90)])
def test_colour_agrees_with_colorsys(hue, saturation, value):
    colour = texture.random_colour(Fixed(hue, saturation, value), (0, 255), (0, 255))
    expected = colorsys.hsv_to_rgb(hue / 1536, saturation / 255, value / 255)
    np.testing.assert_allclose(colour, np.array(expected) * 255, atol=2)


def test_paint_runs_from_one_colour_to_the_other():
    pattern = np.array([[0, 51, 255]])
    painted = texture.paint(pattern, (0, 100, 255), (255, 0, 255))
    np.testing.assert_array_equal(painted, [[[0, 100, 255], [51, 80, 255], [255, 0, 255]]])


PATTERNS = ["_plain", "_gradient", "_stripes", "_checks", "_dots", "cloud"]


@pytest.mark.parametrize("size", [(40, 60), (64, 17), (1, 1)], ids=str)
@pytest.mark.parametrize("name", PATTERNS)
def test_patterns_fill_their_area_within_range(name, size):
    drawn = [getattr(texture, name)(BitStream(seed), *size, 12) for seed in range(20)]
    for pattern in drawn:
        assert pattern.shape == size and pattern.dtype == np.int32
        assert 0 <= pattern.min() <= pattern.max() <= 255
    if name != "_plain" and size != (1, 1):
        assert all(np.ptp(pattern) > 60 for pattern in drawn)


def test_stripes_have_the_period_asked_for():
    bits = Fixed(ONE, 0, 0, 0)  # along the x axis, without offset
    pattern = texture._stripes(bits, 4, 64, scale=32)
    np.testing.assert_array_equal(pattern[:, 16:], pattern[:, :-16])
    assert set(np.unique(pattern)) >= {0, 255}


def test_cloud_is_smooth_and_repeats_for_its_key():
    cloud = texture.cloud(BitStream(5), 80, 90, 20)
    np.testing.assert_array_equal(cloud, texture.cloud(BitStream(5), 80, 90, 20))
    assert abs(np.diff(cloud, axis=0)).max() < 60 > abs(np.diff(cloud, axis=1)).max()


def test_random_pattern_takes_every_kind(monkeypatch):
    seen = set()
    for name in PATTERNS:
        monkeypatch.setattr(texture, name, lambda *_, name=name: seen.add(name))
    for seed in range(100):
        texture.random_pattern(BitStream(seed), 8, 8, 8)
    assert seen == set(PATTERNS)
