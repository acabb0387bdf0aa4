"""The module that `import mmcv._ext` gives where mmcv has no compiled extension."""

from collections.abc import Callable
from typing import NoReturn

from swin_mm.compat.mmcv_ext.bbox import bbox_overlaps
from swin_mm.compat.mmcv_ext.carafe import (
    carafe_backward,
    carafe_forward,
    carafe_naive_backward,
    carafe_naive_forward,
)
from swin_mm.compat.mmcv_ext.deform_attn import ms_deform_attn_backward, ms_deform_attn_forward
from swin_mm.compat.mmcv_ext.deform_conv import (
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    deform_conv_forward,
    modulated_deform_conv_backward,
    modulated_deform_conv_forward,
)
from swin_mm.compat.mmcv_ext.deform_roi_pool import (
    deform_roi_pool_backward,
    deform_roi_pool_forward,
)
from swin_mm.compat.mmcv_ext.focal import (
    sigmoid_focal_loss_backward,
    sigmoid_focal_loss_forward,
    softmax_focal_loss_backward,
    softmax_focal_loss_forward,
)
from swin_mm.compat.mmcv_ext.info import get_compiler_version, get_compiling_cuda_version
from swin_mm.compat.mmcv_ext.masked_conv import masked_col2im_forward, masked_im2col_forward
from swin_mm.compat.mmcv_ext.nms import nms, nms_match, softnms
from swin_mm.compat.mmcv_ext.psa_mask import psamask_backward, psamask_forward
from swin_mm.compat.mmcv_ext.roi_align import roi_align_backward, roi_align_forward
from swin_mm.compat.mmcv_ext.roi_align_rotated import (
    roi_align_rotated_backward,
    roi_align_rotated_forward,
)
from swin_mm.compat.mmcv_ext.roi_pool import roi_pool_backward, roi_pool_forward
from swin_mm.compat.mmcv_ext.rotated import box_iou_rotated, nms_rotated
from swin_mm.compat.mmcv_ext.sync_bn import (
    sync_bn_backward_data,
    sync_bn_backward_param,
    sync_bn_forward_mean,
    sync_bn_forward_output,
    sync_bn_forward_var,
)

__all__ = [
    "bbox_overlaps",
    "box_iou_rotated",
    "carafe_backward",
    "carafe_forward",
    "carafe_naive_backward",
    "carafe_naive_forward",
    "deform_conv_backward_input",
    "deform_conv_backward_parameters",
    "deform_conv_forward",
    "deform_roi_pool_backward",
    "deform_roi_pool_forward",
    "get_compiler_version",
    "get_compiling_cuda_version",
    "masked_col2im_forward",
    "masked_im2col_forward",
    "modulated_deform_conv_backward",
    "modulated_deform_conv_forward",
    "ms_deform_attn_backward",
    "ms_deform_attn_forward",
    "nms",
    "nms_match",
    "nms_rotated",
    "psamask_backward",
    "psamask_forward",
    "roi_align_backward",
    "roi_align_forward",
    "roi_align_rotated_backward",
    "roi_align_rotated_forward",
    "roi_pool_backward",
    "roi_pool_forward",
    "sigmoid_focal_loss_backward",
    "sigmoid_focal_loss_forward",
    "softmax_focal_loss_backward",
    "softmax_focal_loss_forward",
    "softnms",
    "sync_bn_backward_data",
    "sync_bn_backward_param",
    "sync_bn_forward_mean",
    "sync_bn_forward_output",
    "sync_bn_forward_var",
]


def __getattr__(name: str) -> Callable[..., NoReturn]:
    """Gives a function that refuses, for every operator not provided here.

    mmcv looks up the names of all its operators at import and calls few, so that the refusal must
    wait for a call.
    """
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def refuse(*args: object, **kwargs: object) -> NoReturn:
        raise NotImplementedError(
            f"mmcv's operator {name!r} needs mmcv's compiled extension: swin_mm provides only the "
            "operators that models of mmdet and mmseg use. Install a compiled mmcv in place of "
            "mmcv-lite (pip uninstall mmcv-lite; mim install 'mmcv>=2.1,<2.2')"
        )

    return refuse
