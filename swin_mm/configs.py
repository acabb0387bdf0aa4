"""Lets configs elsewhere build on those of swin_mm."""

from pathlib import Path

from swin_mm.cli.config import CONFIG_FOLDER, find_config


def base_config(name: str) -> str:
    """Finds a config of swin_mm for the `_base_` of one that lies elsewhere.

    mmengine's own way, `package::folder/config.py`, is for OpenMMLab's packages alone. A config may
    say instead `_base_ = __import__("swin_mm").base_config("mask_rcnn_swin_t.py")`, which works
    from any folder and under any tool.

    Args:
        name: Path below the folder of configs, such as `_base_/default_runtime.py`.

    Returns:
        The whole path.

    Raises:
        ConfigError: There is none; names the nearest.
    """
    path = CONFIG_FOLDER / name
    return str((path if path.is_file() else find_config(Path(name).name)).resolve())
