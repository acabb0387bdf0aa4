"""The module that `import mmcv._ext` gives where mmcv has no compiled extension."""

from collections.abc import Callable
from inspect import isfunction
from typing import NoReturn

from swin_mm.compat.mmcv_ext import (
    bbox,
    carafe,
    deform_attn,
    deform_conv,
    deform_roi_pool,
    focal,
    masked_conv,
    nms,
    psa_mask,
    roi_align,
    roi_align_rotated,
    roi_pool,
    rotated,
)

_MODULES = (
    *(bbox, carafe, deform_attn, deform_conv, deform_roi_pool, focal, masked_conv, nms),
    *(psa_mask, roi_align, roi_align_rotated, roi_pool, rotated),
)
OPERATORS = {
    name: function
    for module in _MODULES
    for name, function in vars(module).items()
    if isfunction(function) and function.__module__ == module.__name__ and name[0] != "_"
}
globals().update(OPERATORS)


def get_compiler_version() -> str:
    """Stands where the name of the compiler does."""
    return "none (operators of swin_mm)"


def get_compiling_cuda_version() -> str:
    """Stands where the CUDA version of the build does; the compiled CPU build says this too."""
    return "not available"


def __getattr__(name: str) -> Callable[..., NoReturn]:
    """Gives a function that raises, for every operator not provided here.

    mmcv looks up the names of all its operators at import and calls few, so the error must wait for
    a call.
    """
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def not_provided(*args: object, **kwargs: object) -> NoReturn:
        raise NotImplementedError(
            f"mmcv's operator {name!r} needs mmcv's compiled extension: swin_mm provides only the "
            "operators that models of mmdet and mmseg use. Install a compiled mmcv in place of "
            "mmcv-lite (pip uninstall mmcv-lite; mim install 'mmcv>=2.1,<2.2')"
        )

    return not_provided
