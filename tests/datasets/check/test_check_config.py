"""The check of whole configs: wrappers, heads, several loaders, evaluators, built-in data."""

from collections import Counter
from pathlib import Path

import pytest
from broken_data import refuse
from mmdet.registry import DATASETS
from mmengine.config import Config

from swin_mm.datasets.check import DatasetError, check_config
from swin_mm.datasets.check.settings import check_sliding
from swin_mm.datasets.shapes import CLASSES

ROOT = Path(__file__).parents[3]


@pytest.fixture
def shapes(tiny_shapes) -> Path:
    return tiny_shapes


def coco(shapes: Path, split: str = "train", **settings) -> dict:
    return {
        "type": "CocoDataset",
        "data_root": str(shapes),
        "ann_file": f"annotations/instances_{split}.json",
        "data_prefix": {"img": split},
        "metainfo": {"classes": CLASSES},
        **settings,
    }


def config(dataset: dict, **others) -> Config:
    return Config({"default_scope": "mmdet", "train_dataloader": {"dataset": dataset}, **others})


WRAPPERS = {
    "repeat": lambda d: {"type": "RepeatDataset", "times": 3, "dataset": d},
    "balanced": lambda d: {"type": "ClassBalancedDataset", "oversample_thr": 0.1, "dataset": d},
    "mixed": lambda d: {"type": "MultiImageMixDataset", "dataset": d, "pipeline": []},
    "nested": lambda d: {"type": "RepeatDataset", "dataset": {"type": "Mix", "dataset": d}},
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_wrappers_are_taken_off(shapes, wrap):
    bare = check_config(config(coco(shapes))).splits["train"]
    assert bare.images == 12
    assert check_config(config(wrap(coco(shapes)))).splits["train"] == bare
    path = "dataset.dataset.dataset" if wrap is WRAPPERS["nested"] else "dataset.dataset"
    refuse(
        config(wrap(coco(shapes, ann_file="no.json"))),
        f"train_dataloader.{path}: there is no annotation file",
        f"--cfg-options train_dataloader.{path}.ann_file=",
    )


def test_concatenation_is_added_up(shapes):
    parts = [check_config(config(coco(shapes, s))).splits["train"] for s in ("train", "val")]
    both = {"type": "ConcatDataset", "datasets": [coco(shapes), coco(shapes, "val")]}
    whole = check_config(config(both)).splits["train"]
    assert whole.images == 12 + 6
    assert whole.instances == parts[0].instances + parts[1].instances
    assert whole.per_class["ring"] == parts[0].per_class["ring"] + parts[1].per_class["ring"]
    both["datasets"][1]["data_prefix"] = {"img": "nowhere"}
    refuse(config(both), "train_dataloader.dataset.datasets.1: 6 of 6 image files are missing")


@pytest.mark.parametrize("indices", [3, -2, [0, 2, 4], [-1]], ids=str)
@pytest.mark.parametrize("settings", [{}, {"filter_cfg": {"min_size": 90}}], ids=["all", "large"])
def test_a_part_is_counted_as_mmdet_reads_it(shapes, indices, settings):
    dataset = coco(shapes, indices=indices, pipeline=[], **settings)
    built = DATASETS.build({**dataset, "serialize_data": False})
    read = [info["instances"] for info in built.data_list]
    found = check_config(config(dataset)).splits["train"]
    assert found.images == len(read)
    assert found.instances == sum(map(len, read))
    labels = [CLASSES[one["bbox_label"]] for instances in read for one in instances]
    assert {name: count for name, count in found.per_class.items() if count} == Counter(labels)


def test_a_part_that_is_not_there(shapes):
    refuse(config(coco(shapes, indices=[0, 12])), "indices names samples", "there are 12")


def test_a_metric_that_counts_images_left_out_is_told(shapes):
    data = {"dataset": coco(shapes, "val", indices=2, test_mode=True)}
    warnings = check_config(config(coco(shapes), val_dataloader=data)).splits["val"].warnings
    assert "indices takes 2 of 6 images, but the COCO metric scores all" in warnings[0]


def test_unregistered_type(shapes):
    kind = "train_dataloader.dataset.type='CocoDatset' is not a registered data set"
    with pytest.raises(DatasetError, match=f"{kind}: .* custom_imports"):
        check_config(config(coco(shapes, type="CocoDatset")))


def test_other_kinds_are_said_to_be_unchecked(shapes):
    summary = check_config(config(coco(shapes, type="LVISV1Dataset"))).splits["train"]
    assert summary.warnings == [
        "train_dataloader.dataset: data of type LVISV1Dataset is not checked"
    ]


MASK_RCNN = {
    "backbone": {"num_classes": 1000},
    "rpn_head": {"num_classes": 1},
    "roi_head": {
        "bbox_head": {"num_classes": 6},
        "mask_head": {"num_classes": 6},
        "semantic_head": {"num_classes": 183},
    },
}


def test_heads_that_agree(shapes):
    check_config(config(coco(shapes), model=MASK_RCNN))


def test_head_disagrees(shapes):
    model = {**MASK_RCNN, "roi_head": {"bbox_head": {"num_classes": 80}, "mask_head": {}}}
    refuse(
        config(coco(shapes), model=model),
        "model.roi_head.bbox_head.num_classes=80 but the data set has 6 classes: "
        "--cfg-options model.roi_head.bbox_head.num_classes=6",
    )


def test_several_heads_disagree_and_the_remedy_works(shapes):
    model = {
        "roi_head": {"bbox_head": [{"num_classes": 80}, {"num_classes": 6}, {"num_classes": 5}]},
        "decode_head": {"num_classes": 150, "loss_decode": {"type": "CrossEntropyLoss"}},
        "auxiliary_head": {"num_classes": 150},
    }
    cfg = config(coco(shapes), model=model)
    with pytest.raises(DatasetError) as error:
        check_config(cfg)
    options = str(error.value).split("--cfg-options ")[1].split()
    assert options == [
        "model.roi_head.bbox_head.0.num_classes=6",
        "model.roi_head.bbox_head.2.num_classes=6",
        "model.decode_head.num_classes=6",
        "model.auxiliary_head.num_classes=6",
    ]
    cfg.merge_from_dict({o.split("=")[0]: int(o.split("=")[1]) for o in options})
    check_config(cfg)


def test_heads_are_checked_before_the_data_is_read(shapes):
    wrong = config(coco(shapes, ann_file="no.json"), model={"head": {"num_classes": 3}})
    refuse(wrong, "model.head.num_classes=3", is_alone=False)


def test_splits_with_different_classes(shapes):
    val = {"dataset": coco(shapes, "val", metainfo={"classes": CLASSES[:2]})}
    refuse(
        config(coco(shapes), val_dataloader=val),
        "val_dataloader.dataset has 2 classes, circle, triangle, but train_dataloader.dataset "
        "has 6, circle, triangle, square and 3 more; set val_dataloader.dataset.metainfo.classes",
    )


def test_only_the_asked_splits_are_checked(shapes):
    cfg = config(
        coco(shapes),
        val_dataloader={"dataset": coco(shapes, ann_file="no.json")},
        test_dataloader=None,
    )
    assert set(check_config(cfg, splits=("train", "test")).splits) == {"train"}
    refuse(cfg, "val_dataloader.dataset: there is no annotation file")


def test_evaluator_of_other_annotations(shapes):
    cfg = config(
        coco(shapes),
        val_dataloader={"dataset": coco(shapes, "val")},
        val_evaluator={"type": "CocoMetric", "ann_file": "data/coco/instances_val2017.json"},
    )
    file = f"{shapes}/annotations/instances_val.json"
    refuse(
        cfg,
        "val_evaluator.ann_file=data/coco/instances_val2017.json is not the file that "
        f"val_dataloader reads, {file}: --cfg-options val_evaluator.ann_file={file}",
    )
    cfg.val_evaluator.ann_file = f"{shapes}/val/../annotations/instances_val.json"
    check_config(cfg)
    cfg.val_evaluator = [{"type": "IoUMetric"}, {"type": "mmdet.CocoMetric", "ann_file": "x.json"}]
    refuse(cfg, "val_evaluator.1.ann_file=x.json is not")


@pytest.mark.parametrize(("kind", "scope"), [("instance", "mmdet"), ("semantic", "mmseg")])
def test_built_in_data_is_drawn_first(tmp_path, monkeypatch, kind, scope):
    monkeypatch.chdir(tmp_path)
    cfg = Config.fromfile(ROOT / f"configs/_base_/datasets/shapes_{kind}.py")
    cfg.default_scope = scope
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.data_root = "data/shapes/tiny"
    if kind == "instance":
        cfg.val_evaluator.ann_file = "data/shapes/tiny/annotations/instances_val.json"
    summary = check_config(cfg)
    assert (tmp_path / "data/shapes/tiny/meta.json").exists()
    assert [split.images for split in summary.splits.values()] == [12, 6]
    assert len(summary.classes) == {"instance": 6, "semantic": 7}[kind]


def test_built_in_data_of_no_preset(tmp_path):
    cfg = config({"type": "swin_mm.ShapesInstanceDataset", "data_root": str(tmp_path)})
    refuse(cfg, "train_dataloader.dataset: data_root=", "must end in the name of a preset")


@pytest.mark.parametrize(
    ("test_cfg", "message"),
    [
        (dict(stride=(96, 96)), r"model.test_cfg.stride=\(96, 96\) is larger than crop_size"),
        (dict(stride=(0, 0)), "model.test_cfg.stride must be .height, width. in pixels"),
        (dict(stride=(32, 32)), None),
        (dict(stride=(96, 96), mode="whole"), None),
    ],
)
def test_sliding_windows_are_checked_before_the_first_validation(test_cfg, message):
    model = dict(type="EncoderDecoder", test_cfg=dict(mode="slide", crop_size=(64, 64)))
    model["test_cfg"].update(test_cfg)
    if message is None:
        check_sliding(model)
    else:
        with pytest.raises(DatasetError, match=message):
            check_sliding(model)


def test_detectors_have_no_sliding_windows():
    check_sliding(dict(type="FasterRCNN", test_cfg=dict(rpn=dict(nms_pre=1000))))
