"""The built-in data through mmdet's and mmseg's own loaders, pipelines and metrics."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from swin_mm.datasets.shapes import CLASSES, SEMANTIC_CLASSES, draw_scene
from swin_mm.datasets.shapes.write import FIRST_SEED

CONFIGS = Path(__file__).parents[2] / "configs" / "_base_" / "datasets"
SCOPES = {"instance": "mmdet", "semantic": "mmseg"}


@pytest.fixture(scope="module")
def data_root(tmp_path_factory) -> str:
    """Where the tiny preset will be drawn: by the first data set that is built."""
    return f"{tmp_path_factory.mktemp('shapes')}/tiny/"


def load(kind: str, data_root: str) -> Config:
    cfg = Config.fromfile(CONFIGS / f"shapes_{kind}.py")
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.data_root = data_root
        loader.num_workers, loader.persistent_workers = 0, False
    if kind == "instance":
        cfg.val_evaluator.ann_file = f"{data_root}annotations/instances_val.json"
    return cfg


@pytest.fixture(params=["instance", "semantic"])
def loaders(request, data_root):
    """`(kind, training loader, validation loader, config)`, with the scope of the framework."""
    kind = request.param
    cfg = load(kind, data_root)
    with DefaultScope.overwrite_default_scope(SCOPES[kind]):
        yield (
            kind,
            Runner.build_dataloader(cfg.train_dataloader),
            Runner.build_dataloader(cfg.val_dataloader),
            cfg,
        )


def test_data_is_drawn_by_building_the_data_set(loaders, data_root):
    kind, train, val, _ = loaders
    assert (Path(data_root) / "meta.json").exists()
    with_objects = sum(len(draw_scene(seed, "tiny").classes) > 0 for seed in range(12))
    assert len(train.dataset) == {"instance": with_objects, "semantic": 12}[kind]
    assert len(val.dataset) == 6
    classes = {"instance": CLASSES, "semantic": SEMANTIC_CLASSES}[kind]
    assert val.dataset.metainfo["classes"] == classes
    assert len(val.dataset.metainfo["palette"]) == len(classes)


def test_training_batches(loaders):
    kind, train, _, _ = loaders
    batch = next(iter(train))
    for image, sample in zip(batch["inputs"], batch["data_samples"], strict=True):
        assert image.dtype == torch.uint8 and image.shape[0] == 3
        if kind == "instance":
            objects = sample.gt_instances
            assert len(objects.masks) == len(objects.bboxes) == len(objects.labels) > 0
            assert objects.masks.masks.shape[1:] == tuple(image.shape[1:])
        else:
            labels = sample.gt_sem_seg.data
            assert labels.shape[1:] == image.shape[1:] and labels.max() <= 6


def test_validation_samples_are_the_scenes(loaders):
    kind, _, val, _ = loaders
    for index, batch in enumerate(val):
        sample = batch["data_samples"][0]
        scene = draw_scene(FIRST_SEED["val"] + index, "tiny")
        if kind == "semantic":
            np.testing.assert_array_equal(sample.gt_sem_seg.data[0], scene.label_map())
            continue
        objects = sample.gt_instances
        # poly2mask decodes run lengths: holes and pieces are exact.
        np.testing.assert_array_equal(objects.masks.masks, scene.masks)
        np.testing.assert_array_equal(objects.labels, scene.classes)
        np.testing.assert_array_equal(objects.bboxes.numpy(), scene.boxes().reshape(-1, 4))


def perfect_prediction(kind: str, sample, scene) -> DetDataSample | SegDataSample:
    """The ground truth as a model would predict it, at the size of the original image."""
    if kind == "semantic":
        labels = torch.from_numpy(scene.label_map().astype(np.int64))
        sample.pred_sem_seg = PixelData(data=labels[None])
        return sample
    sample.pred_instances = sample.gt_instances.new(
        bboxes=torch.from_numpy(scene.boxes().reshape(-1, 4)).float(),
        labels=torch.from_numpy(scene.classes),
        scores=torch.ones(len(scene.classes)),
        masks=torch.from_numpy(scene.masks),
    )
    return sample


def test_perfect_predictions_score_one(loaders):
    kind, _, val, cfg = loaders
    evaluator = Evaluator(cfg.val_evaluator)
    evaluator.dataset_meta = val.dataset.metainfo
    for index, batch in enumerate(val):
        scene = draw_scene(FIRST_SEED["val"] + index, "tiny")
        sample = perfect_prediction(kind, batch["data_samples"][0], scene)
        evaluator.process(data_samples=[sample], data_batch=batch)
    scores = evaluator.evaluate(len(val.dataset))
    if kind == "instance":
        assert scores["coco/bbox_mAP"] == scores["coco/segm_mAP"] == 1.0
    else:
        assert scores["mIoU"] == 100.0


@pytest.mark.parametrize(
    "name", ["ShapesInstanceDataset", "ShapesPanopticDataset", "ShapesSemanticDataset"]
)
def test_lazy_data_sets_draw_nothing_until_read(tmp_path, name):
    settings = {"data_root": str(tmp_path / "tiny"), "lazy_init": True}
    if "Panoptic" in name:  # mmdet's default is no prefix at all, which mmengine refuses
        settings["data_prefix"] = {"img": "train/", "seg": "panoptic/train/"}
    dataset = DATASETS.build({"type": f"swin_mm.{name}", **settings})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="must end in the name of a preset"):
        dataset.draw_if_missing(tmp_path)
