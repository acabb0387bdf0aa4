"""The ignored label: every setting that names it must name the same."""

import pytest
from mmengine.config import Config

from swin_mm.datasets.check import DatasetError
from swin_mm.datasets.check.settings import check_ignored, find_ignored
from swin_mm.datasets.check.source import find_sources


def config(**options) -> Config:
    cfg = Config(
        dict(
            default_scope="mmseg",
            train_dataloader=dict(
                dataset=dict(
                    type="BaseSegDataset",
                    metainfo=dict(classes=("a", "b")),
                    pipeline=[
                        dict(type="LoadImageFromFile"),
                        dict(type="LoadAnnotations"),
                        dict(type="RandomCrop", crop_size=(8, 8)),
                        dict(type="Pad", size=(8, 8)),
                    ],
                )
            ),
            model=dict(
                data_preprocessor=dict(size=(8, 8)),
                decode_head=dict(type="UPerHead"),
                auxiliary_head=[dict(type="FCNHead")],
            ),
            val_evaluator=dict(type="IoUMetric"),
            test_evaluator=[dict(type="IoUMetric")],
        )
    )
    cfg.merge_from_dict(options, allow_list_keys=True)
    return cfg


def check(cfg: Config) -> None:
    check_ignored(cfg, find_sources(cfg, "train_dataloader"))


KEYS = {
    "model.auxiliary_head.0.ignore_index": 0,
    "model.data_preprocessor.seg_pad_val": 0,
    "val_evaluator.ignore_index": 0,
    "test_evaluator.0.ignore_index": 0,
    "train_dataloader.dataset.ignore_index": 0,
    "train_dataloader.dataset.pipeline.2.ignore_index": 0,
    "train_dataloader.dataset.pipeline.3.pad_val.seg": 0,
}


def test_defaults_agree():
    check(config())


@pytest.mark.parametrize("key", KEYS)
def test_one_that_differs_is_named_with_the_option(key):
    with pytest.raises(DatasetError) as error:
        check(config(**{key: 0}))
    message = str(error.value)
    assert f"ignore the label 255 (model.decode_head.ignore_index), but {key} stands" in message
    assert message.endswith(f"--cfg-options {key}=255") and "\n" not in message


def test_all_others_are_named_where_the_head_differs():
    """Also what pads with 255 by default: the loss would meet a label beyond its classes."""
    cfg = config(**{"model.decode_head.ignore_index": 0})
    with pytest.raises(DatasetError) as error:
        check(cfg)
    options = str(error.value).partition("--cfg-options ")[2]
    named = {option.partition("=")[0] for option in options.split()}
    by_default = {*KEYS} - {
        "train_dataloader.dataset.ignore_index",
        "train_dataloader.dataset.pipeline.2.ignore_index",
    }
    assert named == by_default
    cfg = config(**{"model.decode_head.ignore_index": 0} | dict.fromkeys(named, 0))
    check(cfg)
    assert find_ignored(cfg) == 0


def test_a_zero_that_is_reduced_becomes_255():
    zero = dict.fromkeys(KEYS, 7) | {"model.decode_head.ignore_index": 7}
    check(config(**zero))
    with pytest.raises(DatasetError, match="keep model.decode_head.ignore_index and .* at 255"):
        check(config(**zero, **{"train_dataloader.dataset.reduce_zero_label": True}))


def test_what_is_not_used_does_not_count():
    """A data preprocessor that pads nothing, a loss that masks by itself."""
    settings = {"model.data_preprocessor.size": None, "model.data_preprocessor.seg_pad_val": 0}
    check(config(**settings, **{"model.auxiliary_head.0.ignore_index": None}))


def detector(head: dict, loading: str = "LoadAnnotations", **options) -> Config:
    """HTC has its semantic head in the RoI head, Panoptic FPN in the model."""
    step = dict(type=loading, with_bbox=True, with_seg=True)
    data = dict(type="CocoDataset", pipeline=[step, dict(type="Pad", size_divisor=32)])
    model: dict = {"semantic_head": head}
    if loading == "LoadAnnotations":
        model = {"roi_head": model}
    cfg = Config(dict(model=model, train_dataloader=dict(dataset=data)))
    cfg.merge_from_dict(options, allow_list_keys=True)
    return cfg


HTC, LOSS = "model.roi_head.semantic_head", dict(type="CrossEntropyLoss")
FUSED = dict(type="FusedSemanticHead")
PANOPTIC_FPN = dict(type="PanopticFPNHead")
PANOPTIC = "LoadPanopticAnnotations"


@pytest.mark.parametrize(
    "cfg",
    [
        detector(FUSED),
        detector(dict(FUSED, ignore_label=255)),
        detector(dict(FUSED, loss_seg=dict(LOSS, ignore_index=255))),
        detector(
            dict(FUSED, ignore_label=7),
            **{"train_dataloader.dataset.pipeline.1.pad_val": dict(img=0, seg=7)},
        ),
        detector(dict(PANOPTIC_FPN, loss_seg=dict(LOSS, ignore_index=255)), PANOPTIC),
        Config(
            dict(model=dict(type="Mask2Former"), train_dataloader=detector(FUSED).train_dataloader)
        ),
    ],
)
def test_semantic_heads_of_detectors_that_agree(cfg):
    check(cfg)


@pytest.mark.parametrize(
    ("cfg", "label", "key", "remedy"),
    [
        (detector(dict(FUSED, loss_seg=LOSS)), -100, f"{HTC}.loss_seg.ignore_index", "at 255"),
        (detector(dict(FUSED, ignore_label=7)), 7, f"{HTC}.ignore_label", "pad_val.seg=7"),
        (
            detector(FUSED, **{"train_dataloader.dataset.pipeline.1.pad_val": dict(img=0, seg=0)}),
            255,
            f"{HTC}.loss_seg.ignore_index",
            "pipeline.1.pad_val.seg=255",
        ),
        (
            detector(FUSED, **{"model.data_preprocessor": dict(pad_seg=True, seg_pad_value=0)}),
            255,
            f"{HTC}.loss_seg.ignore_index",
            "model.data_preprocessor.seg_pad_value=255",
        ),
        (  # mmdet's default of this head is -1, and of its data 255
            detector(PANOPTIC_FPN, PANOPTIC),
            -1,
            "model.semantic_head.loss_seg.ignore_index",
            "keep model.semantic_head.loss_seg.ignore_index and the padding of label maps at 255",
        ),
    ],
)
def test_semantic_heads_of_detectors_that_differ(cfg, label, key, remedy):
    with pytest.raises(DatasetError) as error:
        check(cfg)
    message = str(error.value)
    assert f"the losses ignore the label {label} ({key}), but " in message
    assert message.endswith(remedy) and "\n" not in message


def test_only_data_with_label_maps_counts():
    cfg = detector(FUSED)
    assert find_sources(cfg, "train_dataloader")[0].loads_maps()
    cfg.train_dataloader.dataset.pipeline[0].with_seg = False
    assert not find_sources(cfg, "train_dataloader")[0].loads_maps()
