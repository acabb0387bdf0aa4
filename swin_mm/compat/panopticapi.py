"""Supplies what mmdet uses of panopticapi, which is on no package index.

For mmdet 3.3, whose `LoadPanopticAnnotations` and `CocoPanopticMetric` refuse to work without.
"""

from pathlib import Path
from types import ModuleType

from swin_mm.compat.module_finder import Patch, is_supplied, supply

NAME = "panopticapi"


def _fill_in(module: ModuleType) -> None:
    """Gives a module that was imported before what it found missing."""
    if getattr(module, "PQStat", None) is None:
        import panopticapi
        from panopticapi import evaluation, utils

        names = dict(panopticapi=panopticapi, PQStat=evaluation.PQStat, OFFSET=evaluation.OFFSET)
        names.update(VOID=evaluation.VOID, rgb2id=utils.rgb2id, id2rgb=utils.id2rgb)
        vars(module).update(names)


PATCH = Patch(
    "panopticapi",
    "panopticapi, which mmdet reads and scores panoptic maps with, is not on PyPI",
    {
        "mmdet.evaluation.functional.panoptic_utils": _fill_in,
        "mmdet.evaluation.metrics.coco_panoptic_metric": _fill_in,
    },
    prepare=lambda: supply(NAME, str(Path(__file__).with_name("panopticapi_shim") / "__init__.py")),
    why_not=lambda: None if is_supplied(NAME) else "panopticapi is installed",
)
