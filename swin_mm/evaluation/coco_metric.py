"""mmdet's COCO metric with the same numbers in a fraction of the time."""

import os
import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation import CocoMetric as MmdetCocoMetric
from mmengine.logging import MMLogger
from pycocotools.cocoeval import COCOeval
from terminaltables import AsciiTable
from torch import Tensor

from swin_mm.evaluation.coco_eval import (
    STATS,
    coco_table,
    evaluate,
    mean_present,
    overlap_places,
    summarize,
    why_not_faster,
)
from swin_mm.evaluation.detections import Detections, write_json
from swin_mm.garbage import no_collection
from swin_mm.heads.ops.encode_masks import encode_masks
from swin_mm.registry import METRICS
from swin_mm.text import printable

COLUMNS = ("category", *STATS)
# Of what the metrics say again; see `swin_mm.compat.terminal`.
FILE_ONLY = {"file_only": True}


@METRICS.register_module()
class CocoMetric(MmdetCocoMetric):
    """Takes the arguments of mmdet's `CocoMetric` and returns its numbers.

    Masks are encoded where they lie, all of an image at once; detections go to the evaluation as
    they are, not by way of a file, and faster-coco-eval does it where it is installed. A file is
    written when `outfile_prefix` asks for it, the same as mmdet's.

    Four things differ. Recalls are named after `proposal_nums`, any number of them, and `mAP`
    counts 100 detections an image only where 100 is one of them, else the most; mmdet names recalls
    `AR@100`, `AR@300` and `AR@1000` whatever they are. With `classwise=True` the figures of classes
    follow those of all classes, and with several metrics each has its own: `bbox_cat_precision`
    beside `segm_cat_precision`, where mmdet leaves only the last; and they are those of the class
    also where the file's categories are not in the order of their ids, for which mmdet exchanges
    them. `use_mp_eval` changes nothing.
    """

    # What mmdet's metric has, `None` before `_load_annotations`.
    _coco_api: Any
    cat_ids: Any
    img_ids: Any

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        samples = []
        for sample in data_samples:
            found = sample["pred_instances"]
            if isinstance(found.get("masks"), Tensor):
                found = {**found, "masks": encode_masks(found["masks"])}
            samples.append({**sample, "pred_instances": found})
        super().process(data_batch, samples)

    def results2json(self, results: Sequence[dict], outfile_prefix: str) -> dict:
        """Writes COCO files, `outfile_prefix` and `.bbox.json` or `.segm.json`, by metric."""
        found = Detections.gather(results, self.cat_ids)
        files = dict.fromkeys(("bbox", "proposal"), f"{outfile_prefix}.bbox.json")
        write_json(found.box_list(), files["bbox"])
        if found.masks is not None:
            files["segm"] = f"{outfile_prefix}.segm.json"
            write_json(found.mask_list(), files["segm"])
        return files

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Evaluates the whole data set; metrics are rounded to three digits.

        Raises:
            KeyError: A metric needs masks and there are none, or `metric_items` has unknown names.
        """
        if self.format_only:
            return super().compute_metrics(results)
        truths, found = zip(*results, strict=True)
        self._load_annotations(truths)
        if self.outfile_prefix is not None:
            self.results2json(found, self.outfile_prefix)
        # Half a million dicts come to be and stay: to go through them again finds nothing.
        with no_collection():
            return self._evaluate(Detections.gather(found, self.cat_ids), found)

    def _load_annotations(self, truths: Sequence[dict]) -> None:
        """Sets the annotations, from the data set where there is no file, and their ids."""
        if self._coco_api is None:
            with tempfile.TemporaryDirectory() as folder:
                prefix = self.outfile_prefix or os.path.join(folder, "results")
                self._coco_api = COCO(self.gt_to_coco_json(truths, prefix))
        if self.cat_ids is None:
            self.cat_ids = self._coco_api.get_cat_ids(cat_names=self.dataset_meta["classes"])
        if self.img_ids is None:
            self.img_ids = self._coco_api.get_img_ids()

    def _evaluate(self, found: Detections, results: Sequence[dict]) -> dict[str, float]:
        logger = MMLogger.get_current_instance()
        reason = why_not_faster(self._coco_api)
        by = f"pycocotools: {reason}" if reason else "faster-coco-eval"
        logger.info(f"COCO evaluation by {by}")
        metrics: OrderedDict[str, float] = OrderedDict()
        for metric in self.metrics:
            logger.info(f"Evaluating {metric}...", extra=FILE_ONLY)
            if metric == "proposal_fast":
                recalls = self.fast_eval_recall(results, self.proposal_nums, self.iou_thrs, logger)
                names = [f"AR@{number}" for number in self.proposal_nums]
                metrics.update(zip(names, recalls, strict=True))
                continue
            if metric == "segm" and found.masks is None:
                raise KeyError("segm is not in results: the model predicts no masks")
            if not len(found.boxes):
                logger.error("The testing results of the whole dataset is empty.")
                break
            evaluation = evaluate(
                self._coco_api,
                found.mask_list(with_boxes=False) if metric == "segm" else found.box_list(),
                "segm" if metric == "segm" else "bbox",
                category_ids=self.cat_ids,
                image_ids=self.img_ids,
                max_dets=self.proposal_nums,
                iou_thrs=self.iou_thrs,
                faster=reason is None,
                use_categories=metric != "proposal",
            )
            if table := coco_table(evaluation):
                logger.info(f"\n{table}", extra=FILE_ONLY)
            values = summarize(evaluation)
            metrics.update(self._summary(metric, values))
            if metric == "proposal":
                continue
            if self.classwise:
                metrics.update(self._classwise(metric, evaluation, logger))
            shown = " ".join(f"{values[name]:.3f}" for name in STATS)
            logger.info(f"{metric}_mAP_copypaste: {shown}", extra=FILE_ONLY)
        return metrics

    def _summary(self, metric: str, values: dict[str, float]) -> dict[str, float]:
        """The figures asked for, rounded as mmdet rounds them."""
        by_default = STATS if metric != "proposal" else [n for n in values if n not in STATS]
        wanted = by_default if self.metric_items is None else self.metric_items
        unknown = [item for item in wanted if item not in values]
        if unknown:
            raise KeyError(f"metric_items must be of {[*values]}, got {unknown}")
        prefix = "" if metric == "proposal" else f"{metric}_"
        return {f"{prefix}{item}": float(f"{round(values[item], 3)}") for item in wanted}

    def _classwise(self, metric: str, evaluation: COCOeval, logger: MMLogger) -> dict[str, float]:
        """Logs the table of classes and returns the average precision of each."""
        precision = evaluation.eval["precision"]  # (overlap, recall, class, size, detections)
        prefix = f"{metric}_" if len({*self.metrics} & {"bbox", "segm"}) > 1 else ""
        metrics, rows = OrderedDict(), []
        order = list(evaluation.params.catIds)  # the evaluation has sorted them
        for category in self._coco_api.load_cats(self.cat_ids):
            curves = precision[:, :, order.index(category["id"]), :, -1]
            parts = [curves[..., 0], *(curves[at, :, 0] for at in overlap_places(evaluation))]
            parts += [curves[..., size] for size in (1, 2, 3)]
            values = [round(mean_present(part, float("nan")), 3) for part in parts]
            metrics[f"{prefix}{category['name']}_precision"] = values[0]
            rows.append([printable(category["name"]), *map(str, values)])
        logger.info("\n" + AsciiTable([COLUMNS, *rows]).table)
        return metrics
