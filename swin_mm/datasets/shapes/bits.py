"""Random integers that are the same on every machine, in every version of Python and NumPy.

Values are SplitMix64 outputs: a 64-bit hash of a key and a counter, in integer arithmetic only.
NumPy keeps the bits of its generators but not what its distributions make of them, hence this file.

Source: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")

WORD = (1 << 64) - 1
GAMMA = 0x9E3779B97F4A7C15
MIX_A = 0xBF58476D1CE4E5B9
MIX_B = 0x94D049BB133111EB


def mix(word: int) -> int:
    """Hashes a 64-bit word to a 64-bit word, one to one."""
    word &= WORD
    word = (word ^ (word >> 30)) * MIX_A & WORD
    word = (word ^ (word >> 27)) * MIX_B & WORD
    return word ^ (word >> 31)


class BitStream:
    """A stream of random integers fixed by its key.

    Args:
        key: Integers that together name the stream; streams of different keys are independent.
    """

    def __init__(self, *key: int) -> None:
        self._state = 0
        for part in key:
            self._state = mix(self._state + GAMMA + part)

    def word(self) -> int:
        """Returns the next 64 random bits, also usable as the key of another stream or grid."""
        self._state = (self._state + GAMMA) & WORD
        return mix(self._state)

    def below(self, limit: int) -> int:
        """Returns an integer in `[0, limit)`, for limits far below `2**32`."""
        return ((self.word() >> 32) * limit) >> 32

    def between(self, low: int, high: int) -> int:
        """Returns an integer in `[low, high]`, both ends included."""
        return low + self.below(high - low + 1)

    def chance(self, percent: int) -> bool:
        """Returns true `percent` times in a hundred."""
        return self.below(100) < percent

    def choice(self, options: Sequence[T]) -> T:
        """Returns one of the options, each as likely as the others."""
        return options[self.below(len(options))]


def byte_grid(key: int, height: int, width: int, planes: int = 8) -> np.ndarray:
    """Fills a grid with independent random bytes.

    Args:
        key: 64-bit key of the grid.
        height: Rows.
        width: Columns.
        planes: Bytes per cell, at most the 8 of one hash.

    Returns:
        `(height, width, planes)`, uint8.
    """
    count = np.arange(1, height * width + 1, dtype=np.uint64)
    word = count * np.uint64(GAMMA) + np.uint64(key & WORD)  # array arithmetic wraps modulo 2**64
    word = (word ^ (word >> np.uint64(30))) * np.uint64(MIX_A)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(MIX_B)
    word ^= word >> np.uint64(31)
    octets = word.astype("<u8").view(np.uint8)  # little-endian whatever the machine
    return octets.reshape(height, width, 8)[..., :planes]
