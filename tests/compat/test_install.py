"""What `import swin_mm` does to other packages."""

import subprocess
import sys

import swin_mm
from swin_mm import compat


def test_import_is_cheap():
    code = (
        "import sys, swin_mm\n"
        "heavy = {'torch', 'numpy', 'mmcv', 'mmengine', 'mmdet', 'mmseg', 'pkg_resources'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True)
    assert result.returncode == 0, result.stderr.decode()


def test_install_twice_changes_nothing():
    swin_mm.compat.install()
    before = list(sys.meta_path)
    swin_mm.compat.install()
    assert sys.meta_path == before


def test_explain_lists_every_repair_with_a_reason():
    rows = compat.explain()
    assert [name for name, _, _ in rows] == [name.rsplit(".")[-1] for name in compat.REPAIRS]
    assert all(isinstance(active, bool) and reason for _, active, reason in rows)
