import numpy as np
import pytest

from swin_mm.datasets.shapes.bits import BitStream, byte_grid, mix


def test_mix_gives_the_published_splitmix64_sequence():
    # First outputs of SplitMix64 seeded with 1234567 (Vigna's splitmix64.c, as quoted by Rosetta
    # Code): the state advances by the golden gamma and is mixed.
    gamma = 0x9E3779B97F4A7C15
    outputs = [mix(1234567 + gamma * step) for step in (1, 2, 3)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_grid_equals_the_scalar_hash():
    key = (1 << 64) - 3  # counters wrap around
    grid = byte_grid(key, 3, 5)
    words = [mix(key + 0x9E3779B97F4A7C15 * (1 + cell)) for cell in range(15)]
    expected = np.array([list(word.to_bytes(8, "little")) for word in words], dtype=np.uint8)
    np.testing.assert_array_equal(grid, expected.reshape(3, 5, 8))
    np.testing.assert_array_equal(byte_grid(key, 3, 5, planes=2), grid[..., :2])


def test_same_key_gives_same_stream_and_other_keys_others():
    keys = [(), (0,), (1,), (0, 0), (0, 1), (1, 0)]
    starts = {BitStream(*key).word() for key in keys}
    assert len(starts) == len(keys)
    assert [BitStream(4, 2).word() for _ in range(2)] == [BitStream(4, 2).word()] * 2


@pytest.mark.parametrize("limit", [1, 2, 7, 1000])
def test_below_is_even(limit):
    bits = BitStream(limit)
    drawn = np.array([bits.below(limit) for _ in range(20000)])
    assert drawn.min() >= 0 and drawn.max() == limit - 1
    # Mean of a uniform distribution, five standard errors wide.
    assert abs(drawn.mean() - (limit - 1) / 2) < 5 * limit / np.sqrt(12 * 20000)


def test_between_includes_both_ends_and_choice_takes_all():
    bits = BitStream(3)
    assert {bits.between(-2, 1) for _ in range(200)} == {-2, -1, 0, 1}
    assert {bits.choice("abc") for _ in range(200)} == set("abc")


@pytest.mark.parametrize(("percent", "low", "high"), [(0, 0, 0), (30, 270, 330), (100, 1000, 1000)])
def test_chance(percent, low, high):
    bits = BitStream(percent)
    assert low <= sum(bits.chance(percent) for _ in range(1000)) <= high
