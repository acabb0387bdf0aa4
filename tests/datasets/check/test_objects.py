"""Which objects remain to be learned: as many as mmdet's own data set hands to a model."""

import json

import pytest
from broken_data import change_coco, write_coco
from mmengine.config import Config
from mmengine.registry import DATASETS

from swin_mm.datasets.check import DatasetError, check_config, inspect_config
from swin_mm.datasets.check.objects import REASONS, has_mask

RUNS = {"size": [40, 50], "counts": [0, 2000]}
CHANGES = {
    "crowd": dict(iscrowd=1),
    "ignore": dict(ignore=1),
    "outside": dict(bbox=[60, 5, 10, 10]),
    "area": dict(area=0),
    "small": dict(bbox=[0.1, 0.1, 0.5, 0.5]),
    "mask": dict(segmentation=[[]]),
    "runs": dict(segmentation=RUNS),
}


@pytest.fixture
def cfg(tmp_path) -> Config:
    return Config.fromfile(write_coco(tmp_path))


def change_objects(root, values, which=slice(None)):
    def change(coco):
        for annotation in coco["annotations"][which]:
            annotation.update(values)

    change_coco(root, change)


def set_loading(cfg, **settings):
    cfg.train_dataloader.dataset.pipeline[1].update(settings)


def count_in_mmdet(cfg) -> int:
    """Counts the objects that a model gets in one epoch."""
    with DATASETS.switch_scope_and_registry("mmdet") as registry:
        dataset = registry.build(cfg.train_dataloader.dataset)
    return sum(len(dataset[i]["data_samples"].gt_instances) for i in range(len(dataset)))


@pytest.mark.parametrize("reason", CHANGES)
@pytest.mark.parametrize("which", [slice(1), slice(None)], ids=["one", "all"])
def test_counts_are_those_of_mmdet(cfg, tmp_path, reason, which):
    change_objects(tmp_path, CHANGES[reason], which)
    if reason == "runs":
        set_loading(cfg, poly2mask=False)
    objects = len(json.loads((tmp_path / "train.json").read_text())["annotations"])
    left = count_in_mmdet(cfg)
    if which == slice(1):
        assert left == objects - 1
        train = check_config(cfg).splits["train"]
        assert sum(train.learned.values()) == left
        assert train.unlearned == {reason: 1}
        return
    assert left == 0
    words, remedy = REASONS[reason]
    with pytest.raises(DatasetError) as error:
        check_config(cfg)
    assert f"none of the {objects} objects is learned: {objects} {words}" in str(error.value)
    assert str(error.value).endswith(remedy)
    assert [f for f in inspect_config(cfg).faults if "is learned" in f] == [str(error.value)]


def test_images_below_the_least_size_are_not_learned(cfg):
    cfg.train_dataloader.dataset.filter_cfg = dict(filter_empty_gt=True, min_size=41)
    with pytest.raises(ValueError, match="need at least one array"):  # mmdet's, of no images
        count_in_mmdet(cfg)
    with pytest.raises(DatasetError, match="are in images below min_size of filter_cfg"):
        check_config(cfg)


def test_no_annotations(cfg, tmp_path):
    change_coco(tmp_path, lambda coco: coco.update(annotations=[]))
    with pytest.raises(DatasetError, match="no object of the config's classes.* nothing to learn"):
        check_config(cfg)


def test_data_sets_are_judged_together(cfg, tmp_path):
    sound = cfg.train_dataloader.dataset
    coco = json.loads((tmp_path / "train.json").read_text())
    (tmp_path / "none.json").write_text(json.dumps({**coco, "annotations": []}))
    both = [sound, {**sound, "ann_file": "none.json"}]
    cfg.train_dataloader.dataset = dict(type="ConcatDataset", datasets=both)
    train = check_config(cfg).splits["train"]
    assert sum(train.learned.values()) == train.instances > 0


def test_class_of_which_nothing_remains_and_many_crowds_are_told(cfg, tmp_path):
    change_objects(tmp_path, dict(iscrowd=1), slice(1, None))
    warnings = check_config(cfg).splits["train"].warnings
    assert any("nothing is learned of 1 of 2 classes" in line for line in warnings), warnings
    assert any("objects are crowds" in line for line in warnings), warnings


def test_validation_data_of_crowds_alone(cfg, tmp_path):
    change_objects(tmp_path, dict(iscrowd=1))
    cfg.val_dataloader = cfg.pop("train_dataloader")
    with pytest.raises(DatasetError, match="val_dataloader: all .* crowds .* nothing to score"):
        check_config(cfg)


@pytest.mark.parametrize(
    ("segmentation", "expected"),
    [
        (None, False),
        ([], False),
        ([[]], False),
        ([[1, 1, 5, 5]], False),
        ([[1, 1, 5, 5, 3, 3, 2]], False),
        ([[1, 1, 5, 5, 3, 9]], True),
        ([[], [1, 1, 5, 5, 3, 9]], True),
        (RUNS, True),
    ],
)
def test_masks(segmentation, expected):
    assert has_mask(segmentation) is expected
