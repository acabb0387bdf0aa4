"""What `import swin_mm` does to other packages."""

import subprocess
import sys

import pytest

import swin_mm
from swin_mm import compat


def test_import_is_cheap():
    code = (
        "import sys, swin_mm\n"
        "heavy = {'torch', 'numpy', 'mmcv', 'mmengine', 'mmdet', 'mmseg', 'pkg_resources'}\n"
        "heavy.add('rich')\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True)
    assert result.returncode == 0, result.stderr.decode()


def test_install_twice_changes_nothing():
    swin_mm.compat.install()
    before = list(sys.meta_path)
    swin_mm.compat.install()
    assert sys.meta_path == before


@pytest.mark.slow
def test_a_config_can_bring_the_patches():
    """As in mmdet's own train.py, which imports this much before it reads the config."""
    code = (
        "from mmengine.config import Config\n"
        "from mmengine.runner import Runner\n"
        "from mmdet.utils import setup_cache_size_limit_of_dynamo\n"
        "Config.fromstring('custom_imports = dict(imports=[\"swin_mm\"])', '.py')\n"
        "import mmdet.models\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert result.returncode == 0, result.stderr.decode()


def test_every_patch_has_a_name_of_its_own_and_a_reason():
    assert len({patch.name for patch in compat.PATCHES}) == len(compat.PATCHES)
    for patch in compat.PATCHES:
        active, reason = patch.explain()
        assert isinstance(active, bool) and reason
