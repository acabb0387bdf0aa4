"""What mmdet's COCO metric cannot score is refused for it, and taken for swin_mm's."""

import codecs

import pytest
from broken_data import change_coco, write_coco
from mmengine.config import Config

from swin_mm.datasets.check import DatasetError, check_config


@pytest.fixture
def cfg(tmp_path) -> Config:
    cfg = Config.fromfile(write_coco(tmp_path))
    cfg.val_dataloader = cfg.pop("train_dataloader")
    cfg.val_evaluator = dict(type="CocoMetric", ann_file=f"{tmp_path}/train.json")
    return cfg


@pytest.mark.parametrize(
    ("change", "metric", "words"),
    [
        (lambda a: a.update(id=0), "bbox", "annotation ids are not whole numbers from 1 on"),
        (lambda a: a.update(id="x"), "bbox", "annotation ids are not whole numbers from 1 on"),
        (lambda a: a.pop("iscrowd"), "bbox", "1 annotations have no iscrowd"),
        (lambda a: a["segmentation"].append([1, 1, 5, 5]), "segm", "fewer than three points"),
    ],
    ids=["zero", "text", "no crowd flag", "line"],
)
def test_mmdets_metric_cannot_score(cfg, tmp_path, change, metric, words):
    change_coco(tmp_path, lambda coco: change(coco["annotations"][0]))
    cfg.val_evaluator.metric = metric
    with pytest.raises(DatasetError) as error:
        check_config(cfg, splits=("val",))
    assert words in str(error.value)
    assert str(error.value).endswith("--cfg-options val_evaluator.type=swin_mm.CocoMetric")
    cfg.val_evaluator.type = "swin_mm.CocoMetric"
    assert check_config(cfg, splits=("val",)).splits["val"].instances


def test_lines_do_not_matter_where_boxes_alone_are_scored(cfg, tmp_path):
    change_coco(tmp_path, lambda coco: coco["annotations"][0]["segmentation"].append([1, 1]))
    check_config(cfg, splits=("val",))


@pytest.mark.parametrize(
    ("mark", "encoding"), [(codecs.BOM_UTF8, "utf-8"), (b"", "utf-16")], ids=["mark", "utf-16"]
)
def test_encodings_that_pycocotools_cannot_read(cfg, tmp_path, mark, encoding):
    file = tmp_path / "train.json"
    file.write_bytes(mark + file.read_text().encode(encoding))
    with pytest.raises(DatasetError, match="which pycocotools cannot read"):
        check_config(cfg, splits=("val",))
