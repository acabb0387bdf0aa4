"""Ids of segments as colours.

Source:
    https://github.com/cocodataset/panopticapi/blob/master/panopticapi/utils.py
"""

from typing import Any

import numpy as np


def rgb2id(color: Any) -> np.ndarray:
    """Ids `(...)` of colours `(..., 3)`: red + 256 * green + 256^2 * blue."""
    color = np.asarray(color, dtype=np.int64)
    return color[..., 0] + 256 * color[..., 1] + 256**2 * color[..., 2]


def id2rgb(id_map: Any) -> np.ndarray:
    """Colours `(..., 3)`, uint8, of ids `(...)`."""
    ids = np.asarray(id_map)
    return np.stack([ids // 256**place % 256 for place in range(3)], axis=-1).astype(np.uint8)
