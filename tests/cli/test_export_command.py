"""`swin-mm export`: options, and what is refused before work starts."""

import pytest

from swin_mm.cli import export
from swin_mm.configs import ConfigError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "torch"], "--format torch: "),
        (["--half"], "--half: "),
        (["--int8", "data"], "--int8: "),
    ],
    ids=str,
)
def test_what_is_not_there_yet_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        export.main(["mask_rcnn_swin_t", "none.pth", *options])


@pytest.mark.parametrize(
    ("option", "message"),
    [(["--size", "512"], "must be such as 512x768"), (["--batch", "0"], "must be 1 or more")],
    ids=str,
)
def test_sizes_must_make_sense(option, message, capsys):
    with pytest.raises(SystemExit):
        export.parse_args(["a", "b", *option])
    assert message in capsys.readouterr().err


def test_size_is_height_and_width():
    assert export.parse_args(["a", "b", "--size", "512x768"]).size == (512, 768)
