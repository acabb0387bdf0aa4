"""Weights & Biases as a place for what mmengine logs."""

import os
from typing import Any

from mmengine.config import Config
from mmengine.visualization import WandbVisBackend as MMEngineWandbVisBackend
from mmengine.visualization.vis_backend import force_init_env

from swin_mm.registry import VISBACKENDS


@VISBACKENDS.register_module()
class WandbVisBackend(MMEngineWandbVisBackend):
    """mmengine's backend, offline unless asked otherwise, and without a copy of the code.

    mmengine's uploads every Python file below the current folder, a virtual environment included.

    A run is written below the work folder; `wandb sync FOLDER` sends it later. `WANDB_MODE=online`
    in the environment, or `init_kwargs=dict(mode='online')`, sends it while training.

    Args:
        save_dir: Folder of the run; the visualizer gives it.
        init_kwargs: Arguments of `wandb.init`, such as `project`.
        **kwargs: As in mmengine.
    """

    def __init__(self, save_dir: str, init_kwargs: dict | None = None, **kwargs: Any) -> None:
        mode = os.environ.get("WANDB_MODE", "offline")
        super().__init__(save_dir, {"mode": mode, **(init_kwargs or {})}, **kwargs)

    @force_init_env
    def add_config(self, config: Config, **kwargs: Any) -> None:
        self._wandb.config.update(config.to_dict(), allow_val_change=True)
