"""Whether scores are the probabilities of being right."""

from typing import NamedTuple

import numpy as np


class Calibration(NamedTuple):
    """How often detections, or pixels, of a score are right, in bins of equal width from 0 to 1.

    Source:
        Guo et al., On Calibration of Modern Neural Networks, 2017, equation 3.
    """

    counts: np.ndarray  # (bins,), how many there are
    scores: np.ndarray  # (bins,), their mean score; NaN in an empty bin
    precision: np.ndarray  # (bins,), the share of them that is right
    error: float  # expected calibration error: the mean of |precision - score| over all of them


def bin_scores(
    scores: np.ndarray, right: np.ndarray, bins: int = 10, numbers: np.ndarray | None = None
) -> Calibration:
    """Compares scores `(num,)` with how many of what has them is `right`, and `numbers` there are.

    By default there is one of each score.
    """
    numbers = np.ones(len(scores), dtype=np.int64) if numbers is None else numbers
    place = np.minimum((scores * bins).astype(int), bins - 1)
    counts = np.bincount(place, numbers, minlength=bins).astype(np.int64)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(place, scores * numbers, minlength=bins) / counts
        precision = np.bincount(place, right, minlength=bins) / counts
    gaps = np.nan_to_num(np.abs(precision - mean)) * counts
    error = float(gaps.sum() / counts.sum()) if counts.sum() else float("nan")
    return Calibration(counts, mean, precision, error)
