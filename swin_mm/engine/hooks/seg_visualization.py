"""Draws label maps that a segmentor predicts beside the true ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.visualization import Visualizer

from swin_mm.datasets.reader import Reader
from swin_mm.registry import HOOKS


@HOOKS.register_module()
class SegVisualizationHook(Hook):
    """What mmdet's hook does in a test, for mmseg, whose own draws every fiftieth image only.

    Args:
        out_dir: Folder for the pictures, named like the images; None draws none. A relative one is
            within the folder of the run, as in mmdet.
        show: Whether to open each picture in a window.
        wait_time: How long a window stays, seconds.
    """

    def __init__(
        self, out_dir: str | None = None, show: bool = False, wait_time: float = 0.0
    ) -> None:
        self.out_dir = out_dir
        self.show = show
        self.wait_time = wait_time

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any, outputs: Sequence[Any]
    ) -> None:
        visualizer = Visualizer.get_current_instance()
        for sample in outputs:
            path = Path(sample.img_path)
            file = None
            if self.out_dir is not None:
                file = Path(runner.work_dir, runner.timestamp, self.out_dir, f"{path.stem}.png")
            visualizer.add_datasample(
                path.name,
                Reader.of(runner.test_dataloader.dataset).picture(path),
                data_sample=sample,
                show=self.show,
                wait_time=self.wait_time,
                out_file=None if file is None else str(file),
            )
