"""Makes mmengine read checkpoints safely, its own included.

For mmengine 0.10.7 on PyTorch 2.6 and later. There `torch.load` refuses code in a file, and with it
the `HistoryBuffer` in every checkpoint that mmengine writes, so that none can be resumed or tested.
For files from a URL mmengine still runs any code that is in them. Here both go through
`swin_mm.checkpoint.load_checkpoint_file`, whichever scheme (`http://`, `openmmlab://`,
`torchvision://`, `mmcls://`, a path) names the file.
"""

import os
from types import ModuleType
from typing import Any

from swin_mm.compat.module_finder import explain_replacement, when_imported

TARGET = "mmengine.runner.checkpoint"


def install() -> None:
    """Repairs mmengine's loading now, or when it is imported; repeated calls change nothing."""
    when_imported(TARGET, _repair)


def explain() -> tuple[bool, str]:
    """Says whether checkpoints are read safely, and why."""
    reason = "mmengine cannot read its own checkpoints, and runs code in those from URLs"
    return explain_replacement(TARGET, "load_url", load_url, reason)


def _repair(module: ModuleType) -> None:
    from swin_mm.checkpoint.load import allow_checkpoint_types

    # For the schemes that have a `torch.load` of their own: ceph, pavi and openmmlab's local files.
    allow_checkpoint_types()
    module.load_url = load_url
    module.CheckpointLoader.register_scheme("", load_from_local, force=True)


def load_from_local(filename: str, map_location: Any = None) -> dict:
    """Loads a checkpoint by its path, in place of mmengine's function of this name."""
    from swin_mm.checkpoint.load import load_checkpoint_file

    return load_checkpoint_file(filename, map_location)


def load_url(
    url: str, model_dir: str | None = None, map_location: Any = None, progress: bool = True
) -> dict:
    """Downloads a checkpoint, unless it has been before, and loads it.

    Args:
        url: Address of the file.
        model_dir: Folder for downloads; `None` is that of `torch.hub`.
        map_location: As in `torch.load`.
        progress: Whether to show the progress of the download.

    Returns:
        The content of the file.

    Raises:
        CheckpointError: When the address cannot be reached, or the file cannot be loaded.
    """
    from urllib.parse import urlparse

    import torch
    from mmengine.logging import print_log

    from swin_mm.checkpoint import CheckpointError, load_checkpoint_file

    folder = model_dir or os.path.join(torch.hub.get_dir(), "checkpoints")
    file = os.path.join(folder, os.path.basename(urlparse(url).path))
    if not os.path.exists(file):
        os.makedirs(folder, exist_ok=True)
        print_log(f"downloading {url} to {file}", logger="current")
        try:
            torch.hub.download_url_to_file(url, file, progress=progress)
        except OSError as error:  # of urllib and of sockets alike
            raise CheckpointError(_explain_download(url, error)) from error
    try:
        return load_checkpoint_file(file, map_location)
    except CheckpointError as error:
        raise CheckpointError(f"{error}. Delete {file} to have {url} fetched again") from error


def _explain_download(url: str, error: OSError) -> str:
    code = getattr(error, "code", None)  # an answer of the server, such as 404
    reason = f"the server answers {code}" if code else f"this machine cannot reach it ({error})"
    return (
        f"cannot download {url}: {reason}. Fetch the file elsewhere and give its path, for a "
        "backbone by --cfg-options model.backbone.init_cfg.checkpoint=/path/to/"
        f"{url.rpartition('/')[2]}, or train from scratch with model.backbone.init_cfg=None"
    )
