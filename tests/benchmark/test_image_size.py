"""The largest image of training: by hand for steps of pipelines, and for recipes."""

import pytest
from mmengine.config import Config

from swin_mm.benchmark.image_size import find_largest_size
from swin_mm.cli.config import load_config


def config(pipeline, scope="mmdet", preprocessor=None, ratio_sampler=True, wrapper=None):
    dataset = dict(type="Data", pipeline=pipeline)
    if wrapper:
        dataset = dict(type="MultiImageMixDataset", dataset=dataset, pipeline=wrapper)
    loader = dict(dataset=dataset)
    if ratio_sampler:
        loader["batch_sampler"] = dict(type="mmdet.AspectRatioBatchSampler")
    model = dict(data_preprocessor=preprocessor or {})
    return Config(dict(default_scope=scope, model=model, train_dataloader=loader))


def resize(scale, keep_ratio=True, kind="Resize", **settings):
    return dict(type=kind, scale=scale, keep_ratio=keep_ratio, **settings)


def choice(*scales):
    return dict(type="RandomChoiceResize", scales=list(scales), keep_ratio=True)


CASES = {
    "sides in either order": ([resize((1333, 800))], (800, 1333)),
    "stretched to width and height": ([resize((640, 320), keep_ratio=False)], (320, 640)),
    "between two": ([resize([(1600, 400), (1600, 1400)], kind="RandomResize")], (1400, 1600)),
    "by a range of ratios": (
        [resize((400, 200), kind="RandomResize", ratio_range=(0.5, 2.0))],
        (400, 800),
    ),
    "the largest of several": ([choice((480, 1333), (800, 1333), (640, 1333))], (800, 1333)),
    "cropped": ([resize((1333, 800)), dict(type="RandomCrop", crop_size=(900, 600))], (600, 900)),
    "crop larger than the image": (
        [resize((100, 50)), dict(type="RandomCrop", crop_size=(300, 300))],
        (100, 100),  # as the image may stand
    ),
    "crop of another kind is at most the image": (
        [
            resize((1333, 800)),
            dict(type="RandomCrop", crop_type="absolute_range", crop_size=(384, 600)),
        ],
        (800, 1333),
    ),
    "one of two branches": (
        [
            dict(
                type="RandomChoice",
                transforms=[[choice((500, 500))], [choice((900, 400)), dict(type="RandomFlip")]],
            )
        ],
        (400, 900),
    ),
    "padded": ([resize((300, 200)), dict(type="Pad", size=(640, 100))], (200, 640)),
    "steps that change no size": (
        [dict(type="LoadImageFromFile"), resize((64, 64)), dict(type="RandomFlip", prob=0.5)],
        (64, 64),
    ),
}


@pytest.mark.parametrize(("pipeline", "expected"), CASES.values(), ids=CASES)
def test_steps_of_pipelines(pipeline, expected):
    assert find_largest_size(config(pipeline)) == expected


@pytest.mark.parametrize(
    "pipeline",
    [
        [dict(type="LoadImageFromFile")],
        [dict(type="Resize", scale_factor=1.0)],
        [dict(type="RandomChoice", transforms=[[choice((8, 8))], [dict(type="RandomFlip")]])],
    ],
    ids=["none", "by a factor", "one branch does not say"],
)
def test_pipelines_that_do_not_say(pipeline):
    assert find_largest_size(config(pipeline)) is None


def test_padding_of_batches():
    pipeline = [resize((1333, 800))]
    divided = dict(pad_size_divisor=32)
    assert find_largest_size(config(pipeline, preprocessor=divided)) == (800, 1344)
    # Without the sampler one that lies and one that stands may meet.
    mixed = config(pipeline, preprocessor=divided, ratio_sampler=False)
    assert find_largest_size(mixed) == (1344, 1344)
    fixed = dict(batch_augments=[dict(type="BatchFixedSizePad", size=(1024, 1024))])
    assert find_largest_size(config(pipeline, preprocessor=fixed)) == (1024, 1024)


def test_segmentors_crop_by_height_and_pad_to_their_size():
    crop = [resize((2048, 512)), dict(type="RandomCrop", crop_size=(256, 384))]
    assert find_largest_size(config(crop, "mmseg")) == (256, 384)
    assert find_largest_size(config(crop, "mmseg", dict(size=(512, 300)))) == (512, 384)
    assert find_largest_size(config([], "mmseg", dict(size=(96, 64)))) == (96, 64)
    edge = [dict(type="ResizeShortestEdge", scale=512, max_size=2048)]
    assert find_largest_size(config(edge, "mmseg")) == (512, 2048)


def test_pipelines_of_wrappers_come_after_those_within():
    mosaic = [dict(type="Mosaic"), resize((300, 300)), dict(type="RandomCrop", crop_size=(96, 64))]
    assert find_largest_size(config([resize((900, 900))], wrapper=mosaic)) == (64, 96)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mask_rcnn_swin_t", (800, 1344)),
        ("htc_swin_b_6x", (1408, 1600)),
        ("mask2former_swin_t", (1024, 1024)),
        ("rtmdet_swin_b", (640, 640)),
        ("upernet_swin_t", (512, 512)),
        ("upernet_swin_t_cityscapes", (512, 1024)),
        ("mask_rcnn_swin_mini_shapes", None),
    ],
)
def test_recipes(name, expected):
    assert find_largest_size(load_config(name)) == expected
