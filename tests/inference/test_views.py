"""What `--tta` and `--sliced` make of a config."""

import pytest
from mmengine.config import Config, ConfigDict

from swin_mm.configs import ConfigError, find_config
from swin_mm.inference.views import use_sliced_inference, use_test_time_augmentation

LOAD = dict(type="LoadImageFromFile", backend_args=None)
ANNOTATIONS = dict(type="LoadAnnotations", with_bbox=True)
RESIZE = dict(type="Resize", scale=(1333, 800), keep_ratio=True)
META_KEYS = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
PACK = dict(type="PackDetInputs", meta_keys=META_KEYS)
PACK_SEG = dict(type="PackSegInputs")


def make(pipeline, scope="mmdet", **settings):
    """A config with only what matters here; the data set is wrapped once."""
    model = dict(type="Some", test_cfg=settings.pop("test_cfg", {}))
    dataset = dict(type="Wrapper", dataset=dict(type="Data", pipeline=pipeline))
    return Config(
        dict(default_scope=scope, model=model, test_dataloader=dict(dataset=dataset), **settings)
    )


def pipeline_of(cfg):
    return cfg.to_dict()["test_dataloader"]["dataset"]["dataset"]["pipeline"]


def test_scales_and_mirror_images_of_a_detector():
    cfg = make([LOAD, RESIZE, ANNOTATIONS, PACK])
    use_test_time_augmentation(cfg)
    load, views = pipeline_of(cfg)
    sizes, flips, annotations, (pack,) = views["transforms"]
    assert load == LOAD and annotations == [ANNOTATIONS]
    # The annotations kept are those of the first view, which is drawn beside the original image.
    assert [size["scale"] for size in sizes] == [(1333, 800), (1599, 960)]
    assert [flip["prob"] for flip in flips] == [0.0, 1.0]
    assert tuple(pack["meta_keys"]) == (*META_KEYS, "flip", "flip_direction")
    assert cfg.model.type == "swin_mm.MaskTTAModel" and cfg.model.module.type == "Some"


def test_images_padded_to_one_size_stay_in_it():
    resize, pad = dict(type="Resize", scale=(640, 640)), dict(type="Pad", size=(640, 640))
    cfg = make([LOAD, resize, pad, PACK])
    use_test_time_augmentation(cfg)
    assert pipeline_of(cfg)[-1]["transforms"][0] == [resize]
    multiple = dict(type="Pad", size_divisor=32)
    cfg = make([LOAD, resize, multiple, PACK])
    use_test_time_augmentation(cfg)
    sizes, _, padding, _ = pipeline_of(cfg)[-1]["transforms"]
    assert [size["scale"] for size in sizes] == [(640, 640), (768, 768)]
    assert padding == [multiple]


@pytest.mark.parametrize(
    ("test_cfg", "expected"),
    [
        ({}, dict(nms=dict(type="nms", iou_threshold=0.5), max_per_img=100)),
        (
            dict(rpn=dict(max_per_img=1000), rcnn=dict(nms=dict(iou_threshold=0.6))),
            dict(nms=dict(iou_threshold=0.6), max_per_img=100),
        ),
        (
            dict(nms=dict(type="nms", iou_threshold=0.7), max_per_img=300),
            dict(nms=dict(type="nms", iou_threshold=0.7), max_per_img=300),
        ),
    ],
    ids=["without suppression", "two stages", "one stage"],
)
def test_views_are_merged_as_the_detector_merges_its_own(test_cfg, expected):
    cfg = make([LOAD, PACK], test_cfg=test_cfg)
    use_test_time_augmentation(cfg)
    assert cfg.to_dict()["model"]["tta_cfg"] == expected


def test_settings_of_the_config_count():
    model = dict(type="DetTTAModel", tta_cfg=dict(max_per_img=7))
    cfg = make([LOAD, PACK], tta_model=model, tta_pipeline=[LOAD])
    use_test_time_augmentation(cfg)
    assert cfg.model.type == "swin_mm.MaskTTAModel" and cfg.model.tta_cfg.max_per_img == 7
    assert pipeline_of(cfg) == [LOAD]


def test_default_packing_keeps_how_a_view_was_flipped():
    cfg = make([LOAD, dict(type="PackDetInputs")])
    use_test_time_augmentation(cfg)
    assert pipeline_of(cfg)[-1]["transforms"][-1] == [dict(type="PackDetInputs")]


def test_scales_of_a_segmentor():
    resize = dict(type="Resize", scale=(2048, 512), keep_ratio=True)
    annotations = dict(type="LoadAnnotations", reduce_zero_label=True)
    cfg = make([LOAD, resize, annotations, PACK_SEG], scope="mmseg")
    use_test_time_augmentation(cfg)
    assert cfg.model.type == "swin_mm.SegTTAModel"
    load, views = pipeline_of(cfg)
    sizes, flips, *rest = views["transforms"]
    assert load == LOAD and rest == [[annotations], [PACK_SEG]]
    scales = [(1024, 256), (1536, 384), (2048, 512), (2560, 640), (3072, 768), (3584, 896)]
    assert [size["scale"] for size in sizes] == scales
    assert [flip["prob"] for flip in flips] == [0.0, 1.0]


def test_scales_of_a_segmentor_that_does_not_resize():
    cfg = make([LOAD, ANNOTATIONS, PACK_SEG], scope="mmseg")
    use_test_time_augmentation(cfg)
    sizes, _, *rest = pipeline_of(cfg)[-1]["transforms"]
    assert [size["scale_factor"] for size in sizes] == [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]
    assert rest == [[ANNOTATIONS], [PACK_SEG]]


def test_slices():
    cfg = make([LOAD, RESIZE, ANNOTATIONS, PACK], sliced_model=dict(slice_width=300))
    use_sliced_inference(cfg, slice_height=200)
    assert pipeline_of(cfg) == [LOAD, ANNOTATIONS, PACK]
    model = cfg.to_dict()["model"]
    assert model.pop("module")["type"] == "Some"
    assert model == dict(
        type="swin_mm.SlicedInference", slice_height=200, slice_width=300, pipeline=[RESIZE, PACK]
    )


def test_slices_are_for_detectors():
    with pytest.raises(ConfigError, match="use mmseg's own slices: .*mode=slide"):
        use_sliced_inference(make([LOAD, PACK_SEG], scope="mmseg"))
    with pytest.raises(ConfigError, match="ends in PackDetInputs, not in Resize"):
        use_sliced_inference(make([LOAD, RESIZE]))


@pytest.mark.parametrize("name", ["mask_rcnn_swin_t", "mask_rcnn_swin_mini_shapes"])
@pytest.mark.parametrize("use", [use_test_time_augmentation, use_sliced_inference])
def test_recipes_can_be_wrapped(name, use):
    cfg = Config.fromfile(find_config(name))
    use(cfg)
    assert isinstance(cfg.model.module, ConfigDict)
