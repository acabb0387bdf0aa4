"""Patches of other packages, one file for each kind of fault; the only place that knows them."""

from swin_mm.compat import (
    checkpoint_loading,
    collect_results,
    data_workers,
    distributions,
    log_text,
    mask_transforms,
    missing_modules,
    mmcv_ext,
    mmdet_bert,
    panopticapi,
    transform_errors,
)

PATCHES = (
    mmcv_ext.PATCH,
    *missing_modules.PATCHES,
    checkpoint_loading.PATCH,
    mmdet_bert.PATCH,
    *log_text.PATCHES,
    data_workers.PATCH,
    collect_results.PATCH,
    *mask_transforms.PATCHES,
    transform_errors.PATCH,
    panopticapi.PATCH,
)


def install() -> None:
    """Installs every patch that this environment needs; repeated calls change nothing."""
    distributions.warn_of_overlaps()
    for patch in PATCHES:
        patch.install()
