"""The module for `mmcv._ext`: where it comes from, what it provides, what it refuses."""

import functools
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import mmcv
import pytest
from mmcv.utils.ext_loader import check_ops_exist, load_ext
from mmengine.utils.dl_utils.misc import mmcv_full_available

from swin_mm.compat import mmcv_ext
from swin_mm.compat.mmcv_ext import extension

OPS = Path(mmcv.__file__).with_name("ops")


def run(code, *args):
    return subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True)


@pytest.mark.slow
def test_upstream_still_lacks_its_extension():
    """Fails when `mmcv_ext` is no longer needed."""
    result = run("import mmcv.ops")
    assert result.returncode != 0
    assert "No module named 'mmcv._ext'" in result.stderr


def test_the_module_is_an_ordinary_one():
    module = importlib.import_module("mmcv._ext")
    assert module.__spec__.name == "mmcv._ext"
    assert pkgutil.find_loader("mmcv._ext") is not None
    assert importlib.reload(module) is module
    assert check_ops_exist() and mmcv_full_available()


def test_explain_says_that_it_is_in_use():
    active, reason = mmcv_ext.PATCH.explain()
    assert active and "no compiled extension" in reason


def test_a_compiled_extension_goes_first(tmp_path):
    """An `_ext` in mmcv's own folder is the one imported, whether swin_mm came before or after."""
    package = tmp_path / "mmcv"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "_ext.py").write_text("origin = 'mmcv'\n")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import swin_mm\n"
        "from swin_mm.compat import mmcv_ext\n"
        "import mmcv._ext\n"
        "assert mmcv._ext.origin == 'mmcv'\n"
        "active, reason = mmcv_ext.PATCH.explain()\n"
        "assert not active and 'used as it is' in reason, reason\n"
    )
    result = run(code, str(tmp_path))
    assert result.returncode == 0, result.stderr


def test_explain_without_mmcv():
    code = (
        "import sys, swin_mm; sys.modules['mmcv'] = None\n"
        "from swin_mm.compat import mmcv_ext\n"
        "assert mmcv_ext.PATCH.explain() == (False, 'mmcv is not installed')\n"
    )
    result = run(code)
    assert result.returncode == 0, result.stderr


@functools.cache
def compiled_signatures():
    """Operator names and argument names of the compiled module, from its source."""
    text = (OPS / "csrc" / "pytorch" / "pybind.cpp").read_text()
    definitions = re.findall(r'm\.def\(\s*"(\w+)"(.*?)\);', text, re.DOTALL)
    names = {name: re.findall(r'py::arg\("(\w+)"\)', rest) for name, rest in definitions}
    # The binding names these three in another order than the function and its caller have them.
    rois, grad_input, grad_output, *rest = names["roi_align_rotated_backward"]
    return {**names, "roi_align_rotated_backward": [grad_output, rois, grad_input, *rest]}


@pytest.mark.parametrize("name", extension.OPERATORS)
def test_operators_take_the_arguments_of_the_compiled_ones(name):
    """Some take options, which mmcv gives by name, as `**options`."""
    parameters = inspect.signature(extension.OPERATORS[name]).parameters.values()
    named = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    wanted = compiled_signatures()[name]
    assert named == (wanted if len(named) == len(parameters) else wanted[: len(named)])


def test_every_name_that_mmcv_asks_for_exists():
    asked = set()
    for path in OPS.glob("*.py"):
        for names in re.findall(r"load_ext\(\s*'_ext',\s*\[(.*?)\]", path.read_text(), re.DOTALL):
            asked |= set(re.findall(r"'(\w+)'", names))
    assert len(asked) > 80
    assert set(extension.OPERATORS) <= asked | {"box_iou_rotated"}
    module = load_ext("_ext", sorted(asked))
    assert all(callable(getattr(module, name)) for name in asked)


@pytest.mark.parametrize("name", ["nms_quadri", "knn_forward", "upfirdn2d"])
def test_an_operator_not_provided_refuses_when_called(name):
    with pytest.raises(NotImplementedError, match=f"'{name}' .*\n?.*Install a compiled mmcv"):
        getattr(extension, name)(1, key=2)


def test_a_private_name_is_not_an_operator():
    with pytest.raises(AttributeError, match="no attribute '_private'"):
        extension._private  # noqa: B018
