"""Finding what stands before a layout's keys."""

from swin_mm.checkpoint.layouts.layout import Layout


class Demo(Layout):
    anchor = r"a\.\d\.x"


def test_prefixes_are_found_once_each_and_end_in_a_dot():
    state = dict.fromkeys(["a.1.x", "a.2.x", "net.a.1.x", "net.ema.a.1.x", "a.1.y", "nota.1.x"])
    assert Demo().find_prefixes(state) == {"", "net.", "net.ema."}


def test_no_anchor_no_prefix():
    assert Demo().find_prefixes({"b.1.x": 0}) == set()
