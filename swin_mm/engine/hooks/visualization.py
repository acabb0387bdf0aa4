"""Draws predictions on images of any number of bands."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmdet.engine.hooks import DetVisualizationHook as MmdetDetVisualizationHook
from mmengine.runner import Runner

from swin_mm.datasets.reader import Reader
from swin_mm.registry import HOOKS


@HOOKS.register_module()
class DetVisualizationHook(MmdetDetVisualizationHook):
    """mmdet's hook of that name, with its arguments, on images that are not colour pictures too."""

    score_thr: float | None

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
            self._test_index += 1
            file = None
            if self.test_out_dir is not None:
                folder = Path(runner.work_dir, runner.timestamp, self.test_out_dir)
                file = str(folder / f"{Path(sample.img_path).stem}.png")
            self._draw(sample, "test_img", runner.test_dataloader.dataset, self._test_index, file)

    def _draw(
        self, sample: Any, name: str, dataset: Any, step: int, file: str | None = None
    ) -> None:
        self._visualizer.add_datasample(
            Path(sample.img_path).name if self.show else name,
            Reader.of(dataset).picture(sample.img_path),
            data_sample=sample,
            show=self.show,
            wait_time=self.wait_time,
            out_file=file,
            step=step,
            **({} if self.score_thr is None else {"pred_score_thr": self.score_thr}),
        )


@HOOKS.register_module()
class SegVisualizationHook(DetVisualizationHook):
    """Draws every label map of a test, where mmseg's own hook draws every fiftieth image."""

    def __init__(
        self, out_dir: str | None = None, show: bool = False, wait_time: float = 0.0
    ) -> None:
        super().__init__(draw=True, show=show, wait_time=wait_time, test_out_dir=out_dir)
        self.score_thr = None  # mmseg's visualizer knows none

    def after_val_iter(self, *args: Any, **kwargs: Any) -> None:
        """Draws nothing."""
