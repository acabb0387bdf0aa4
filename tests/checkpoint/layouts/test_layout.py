"""Finding what stands before a layout's keys."""

from swin_mm.checkpoint.layouts.layout import find_prefixes


def test_prefixes_are_found_once_each_and_end_in_a_dot():
    state = dict.fromkeys(["a.1.x", "a.2.x", "net.a.1.x", "net.ema.a.1.x", "a.1.y", "nota.1.x"])
    assert find_prefixes(r"a\.\d\.x", state) == {"", "net.", "net.ema."}


def test_no_anchor_no_prefix():
    assert find_prefixes(r"a\.\d\.x", {"b.1.x": 0}) == set()
