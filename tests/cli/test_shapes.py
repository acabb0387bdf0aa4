import subprocess
import sys
from pathlib import Path

import pytest

from swin_mm.cli.shapes import main


def test_draws_data(tmp_path, capsys):
    main(["tiny", "--root", str(tmp_path)])
    assert (tmp_path / "tiny" / "meta.json").exists()
    last = capsys.readouterr().out.splitlines()[-1]  # below the log's
    assert last == f"tiny: {tmp_path}/tiny"


def test_an_unknown_preset_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["huge"])
    assert "invalid choice: 'huge'" in capsys.readouterr().err


@pytest.mark.slow
def test_tool_runs_from_anywhere(tmp_path):
    tool = Path(__file__).parents[2] / "tools" / "make_shapes.py"
    subprocess.run([sys.executable, tool, "tiny"], cwd=tmp_path, check=True)
    assert (tmp_path / "data" / "shapes" / "tiny" / "meta.json").exists()
