"""Draws predictions on images of any number of bands."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.visualization import Visualizer

from swin_mm.datasets.reader import Reader
from swin_mm.registry import HOOKS


@HOOKS.register_module()
class DetVisualizationHook(Hook):
    """What mmdet's hook of that name does, on images that are not colour pictures too.

    Args:
        draw: Whether to draw anything.
        interval: In validation, the first image of every so-manieth batch is drawn; in a test every
            image is.
        score_thr: Detections below this score are left out.
        show: Whether to open each picture in a window.
        wait_time: How long a window stays, seconds.
        test_out_dir: Folder for the pictures of a test, named like the images; None draws none. A
            relative one is within the folder of the run.
    """

    def __init__(
        self,
        draw: bool = False,
        interval: int = 50,
        score_thr: float = 0.3,
        show: bool = False,
        wait_time: float = 0.0,
        test_out_dir: str | None = None,
    ) -> None:
        self.draw = draw
        self.interval = interval
        self.show = show
        self.test_out_dir = test_out_dir
        self.options = dict(show=show, wait_time=wait_time, pred_score_thr=score_thr)
        self.drawn = 0

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any, outputs: Sequence[Any]
    ) -> None:
        step = runner.iter + batch_idx
        if self.draw and step % self.interval == 0:
            self._draw(outputs[0], "val_img", runner.val_dataloader.dataset, step)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any, outputs: Sequence[Any]
    ) -> None:
        for sample in outputs if self.draw else ():
            self.drawn += 1
            file = None
            if self.test_out_dir is not None:
                folder = Path(runner.work_dir, runner.timestamp, self.test_out_dir)
                file = str(folder / f"{Path(sample.img_path).stem}.png")
            self._draw(sample, "test_img", runner.test_dataloader.dataset, self.drawn, file)

    def _draw(
        self, sample: Any, name: str, dataset: Any, step: int, file: str | None = None
    ) -> None:
        Visualizer.get_current_instance().add_datasample(
            Path(sample.img_path).name if self.show else name,
            Reader.of(dataset).picture(sample.img_path),
            data_sample=sample,
            out_file=file,
            step=step,
            **self.options,
        )


@HOOKS.register_module()
class SegVisualizationHook(DetVisualizationHook):
    """Draws every label map of a test, where mmseg's own hook draws every fiftieth image.

    Args:
        out_dir: As `test_out_dir` of `DetVisualizationHook`.
        show: As there.
        wait_time: As there.
    """

    def __init__(
        self, out_dir: str | None = None, show: bool = False, wait_time: float = 0.0
    ) -> None:
        super().__init__(True, show=show, wait_time=wait_time, test_out_dir=out_dir)
        del self.options["pred_score_thr"]  # mmseg's visualizer has none

    def after_val_iter(self, *args: Any, **kwargs: Any) -> None:
        """Draws nothing."""
