"""Which detections of slices become objects, by hand."""

import numpy as np
import pytest
from mmengine.structures import InstanceData

from swin_mm.inference.merge_slices import MatchRule, merge_slices

# An image of 160 x 50 pixels; both slices show columns 60 to 100.
SIZE = (50, 160)
SLICES = [(0, 0, 100, 50), (60, 0, 160, 50)]


def merge(*found, slices=SLICES, rows=(10, 30)):
    """Merges detections given as (slice, left, right, score), all in the same rows."""
    numbers, lefts, rights, scores = (np.array(column) for column in zip(*found, strict=True))
    top, bottom = (np.full(len(found), row) for row in rows)
    boxes = np.stack([lefts, top, rights, bottom], axis=1)
    labels = np.zeros(len(found), dtype=int)
    merged = merge_slices(
        InstanceData(bboxes=boxes.astype(float), scores=scores, labels=labels, slices=numbers),
        slices,
        SIZE,
        MatchRule(),
    )
    sides = [(int(left), int(right)) for left, _, right, _ in merged.boxes]
    return [
        (side, round(float(score), 2)) for side, score in zip(sides, merged.scores, strict=True)
    ]


class TestSlivers:
    """A piece at a border of its slice, where the other slice shows the place uncut."""

    def test_dropped_where_the_other_slice_sees_nothing(self):
        assert merge((0, 90, 100, 0.9)) == []

    def test_dropped_beside_the_object(self):
        assert merge((0, 90, 100, 0.9), (1, 90, 130, 0.6)) == [((90, 130), 0.6)]

    @pytest.mark.parametrize(
        ("left", "kept"), [(64, True), (65, False)], ids=["at the other's border", "within"]
    )
    def test_kept_where_the_other_slice_cuts_too(self, left, kept):
        """The other slice begins at 60, and four pixels from its border it may have cut."""
        assert bool(merge((0, left, 100, 0.9))) == kept

    def test_the_image_s_own_borders_cut_nothing(self):
        """Neither slice has more to show above and below, nor the second to the right."""
        assert merge((0, 90, 100, 0.9), rows=(0, 50)) == []
        assert merge((1, 100, 160, 0.9), rows=(0, 50)) == [((100, 160), 0.9)]

    def test_whole_image_is_no_slice(self):
        """Shrunk, it may well miss what a slice sees."""
        slices = [(0, 0, 100, 50), (100, 0, 160, 50), (0, 0, 160, 50)]
        assert merge((0, 90, 100, 0.9), slices=slices) == [((90, 100), 0.9)]


class TestTrust:
    """Detections of one object from both slices: each is cut, so none is seen better elsewhere."""

    @pytest.mark.parametrize(
        ("score", "box"),
        [(0.45, (20, 140)), (0.44, (20, 100))],
        ids=["half the best score", "less than half"],
    )
    def test_doubtful_pieces_are_dropped_not_united(self, score, box):
        assert merge((0, 20, 100, 0.9), (1, 60, 140, score)) == [(box, 0.9)]

    def test_a_doubtful_piece_links_nothing(self):
        """Of three slices in a row the middle one is in doubt: the outer ones stay apart."""
        slices = [(0, 0, 70, 50), (40, 0, 120, 50), (90, 0, 160, 50)]
        ends = (0, 20, 70, 0.9), (2, 90, 140, 0.8)
        assert merge(*ends, (1, 40, 120, 0.7), slices=slices) == [((20, 140), 0.9)]
        assert merge(*ends, (1, 40, 120, 0.3), slices=slices) == [((20, 70), 0.9), ((90, 140), 0.8)]
