import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from swin_mm.cli.shapes import main


def test_draws_data_and_a_sheet(tmp_path, capsys):
    main(["tiny", "--root", str(tmp_path), "--sheet", str(tmp_path / "sheet.png")])
    assert (tmp_path / "tiny" / "meta.json").exists()
    assert Image.open(tmp_path / "sheet.png").width > 1000
    last = capsys.readouterr().out.splitlines()[-2:]  # below the log's
    assert last == [f"tiny: {tmp_path}/tiny", f"samples: {tmp_path}/sheet.png"]


def test_an_unknown_preset_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["huge"])
    assert "invalid choice: 'huge'" in capsys.readouterr().err


@pytest.mark.slow
def test_tool_runs_from_anywhere(tmp_path):
    tool = Path(__file__).parents[2] / "tools" / "make_shapes.py"
    subprocess.run([sys.executable, tool, "tiny"], cwd=tmp_path, check=True)
    assert (tmp_path / "data" / "shapes" / "tiny" / "meta.json").exists()
