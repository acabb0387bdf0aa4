"""Names resolve in fresh processes, whoever starts them, and nothing optional is needed."""

import subprocess
import sys

import pytest

BUILD = """
model = MODELS.build(dict(type="swin_mm.SwinTransformer", embed_dims=8, depths=(1,),
                          num_heads=(1,), strides=(4,), out_indices=(0,)))
neck = MODELS.build(dict(type="swin_mm.FPN", in_channels=[8], out_channels=8, num_outs=1))
assert type(model).__module__.startswith("swin_mm."), type(model)
assert type(neck).__module__.startswith("swin_mm."), type(neck)
"""


def run(code):
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "scope",
    ["mmdet", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mmengine", "mmseg"))],
)
def test_a_config_of_any_scope_finds_us_by_name(scope):
    """As in the tools of mmdet and mmseg: the config is read, its scope set, the model built."""
    run(
        "from mmengine.config import Config\n"
        "from mmengine.registry import DefaultScope\n"
        "Config.fromstring('custom_imports = dict(imports=[\"swin_mm\"])', '.py')\n"
        f"from {scope}.registry import MODELS\n"
        f"DefaultScope.get_instance('run', scope_name='{scope}')\n" + BUILD
    )


def test_models_need_no_framework_and_no_triton():
    run(
        "import sys\n"
        "for name in ('mmdet', 'mmseg', 'triton', 'mmcv.ops', 'pycocotools', 'timm'):\n"
        "    sys.modules[name] = None\n"  # as if it were not installed
        "import torch\n"
        "from swin_mm import FPN, SwinTransformer\n"
        "maps = SwinTransformer(depths=(1, 1), num_heads=(1, 1), strides=(4, 2), embed_dims=8,\n"
        "                       out_indices=(0, 1))(torch.zeros(1, 3, 33, 65))\n"
        "FPN(in_channels=[8, 16], out_channels=8, num_outs=3)(maps)\n"
    )
