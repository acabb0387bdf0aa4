"""Supplies `mmcv._ext`, the compiled part of mmcv, where there is none.

For mmcv and mmcv-lite 2.0 to 2.2. `mmcv-lite` ships every Python module of `mmcv.ops` but not the
extension they load, and mmcv's own extension does not build against current PyTorch: its set-up
imports `pkg_resources` and asks for C++14, PyTorch's headers for C++20. Without an extension
`import mmcv.ops`, and with it most of `mmdet.models`, fails.

`extension` is the module that mmcv gets; each family of operators has a file of its own. The
functions keep the contracts of mmcv's C++ ones (`mmcv/ops/csrc/pytorch/pybind.cpp`): most write
their results into tensors that the caller hands over, under the argument names used there.
"""

from pathlib import Path

from swin_mm.compat.module_finder import Patch, is_supplied, supply

NAME = "mmcv._ext"


def _why_not() -> str | None:
    try:
        supplied = is_supplied(NAME)
    except ModuleNotFoundError:
        return "mmcv is not installed"
    return None if supplied else "mmcv brings its compiled extension, which is used as it is"


PATCH = Patch(
    "mmcv_ext",
    "mmcv has no compiled extension: its operators run on torchvision and PyTorch",
    prepare=lambda: supply(NAME, str(Path(__file__).with_name("extension.py"))),
    why_not=_why_not,
)
