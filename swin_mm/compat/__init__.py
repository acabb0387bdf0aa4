"""Repairs to other packages, one file for each fault; the only place that knows them.

Each module in `REPAIRS` states in its docstring the fault and the versions that have it, and offers
`install()`, which is cheap and may be called again, and `explain()`, which says whether the repair
is in effect in this environment, and why.
"""

from importlib import import_module

REPAIRS = (
    "swin_mm.compat.mmcv_ext",
    "swin_mm.compat.missing_pkg_resources",
    "swin_mm.compat.pkg_resources_warning",
    "swin_mm.compat.missing_find_loader",
    "swin_mm.compat.checkpoint_loading",
    "swin_mm.compat.checkpoint_config",
    "swin_mm.compat.mmdet_bert",
    "swin_mm.compat.paramwise_log",
    "swin_mm.compat.data_workers",
    "swin_mm.compat.polygon_transforms",
    "swin_mm.compat.bitmap_masks",
    "swin_mm.compat.thin_images",
    "swin_mm.compat.transform_errors",
)


def install() -> None:
    """Puts every repair in place that this environment needs; repeated calls change nothing."""
    for name in REPAIRS:
        import_module(name).install()


def explain() -> list[tuple[str, bool, str]]:
    """Lists the repairs: name, whether it is in effect, and why."""
    return [(name.rpartition(".")[2], *import_module(name).explain()) for name in REPAIRS]
