"""Predicting image files from the command line."""

import json
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from id_map_detector import IdMapDetector, as_image, score_of
from mmengine.config import Config
from mmengine.registry import MODELS
from pycocotools.coco import COCO

from swin_mm.checkpoint import CheckpointError
from swin_mm.cli import predict as command
from swin_mm.cli.main import run_command
from swin_mm.configs import ConfigError, find_config
from swin_mm.inference.pipeline import without_annotations
from swin_mm.inference.prediction_files import PredictionFiles
from swin_mm.inference.sources import PredictError

EXACT = """
default_scope = 'mmdet'
model = dict(type='SeenIdMapDetector')
test_dataloader = dict(dataset=dict(
    type='CocoDataset',
    metainfo=dict(classes=('zero', 'one', 'two')),
    ann_file='none.json',
    pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
        dict(type='Resize', scale_factor=1.0, interpolation='nearest'),
        dict(type='PackDetInputs')]))
"""
NARROW = dict(embed_dims=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2))


class SeenIdMapDetector(IdMapDetector):
    """Tells what sizes all of its kind have seen."""

    seen: list = []

    def _detect(self, numbers, meta, weight):
        self.seen.append(numbers.shape)
        return super()._detect(numbers, meta, weight)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Two images of numbered objects, and the config of a detector that is always right."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(MODELS._module_dict, "SeenIdMapDetector", SeenIdMapDetector)
    SeenIdMapDetector.seen = []
    Path("exact.py").write_text(EXACT)
    torch.save({"state_dict": {}, "meta": {}}, "exact.pth")
    numbers = np.zeros((120, 170), dtype=np.uint8)
    numbers[10:40, 20:150] = 1
    numbers[60:80, 30:60] = 2
    numbers[90:110, 100:130] = 71
    for name, pixels in (("a.png", numbers), ("sub/b.png", numbers[:100, :90])):
        Path("photos", name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(f"photos/{name}", as_image(pixels))
    return numbers


def predict(*options):
    code = command.main(["exact.py", "exact.pth", "photos", *options])
    return code, json.loads(Path("predictions", "predictions.json").read_text())


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ([], {(120, 170), (100, 90)}),
        (["--tta"], {(120, 170), (100, 90), (144, 204), (120, 108)}),
        (
            ["--sliced", "--slice-height", "64", "--slice-width", "80"],
            {(64, 80), (120, 170), (100, 90)},
        ),
    ],
    ids=["plain", "tta", "sliced"],
)
def test_all_objects_of_a_folder(photos, capsys, options, sizes):
    code, content = predict(*options)
    assert code == 0
    assert set(SeenIdMapDetector.seen) == sizes
    assert [image["file_name"] for image in content["images"]] == [
        "photos/a.png",
        "photos/sub/b.png",
    ]
    coco = COCO("predictions/predictions.json")
    first, second = (coco.imgToAnns[image] for image in (1, 2))
    # The third object scores 0.29, less than the threshold.
    assert [a["score"] for a in first] == pytest.approx([score_of(1), score_of(2)])
    assert [a["category_id"] for a in first] == [2, 3]
    assert [a["bbox"] for a in second] == [[20, 10, 70, 30], [30, 60, 30, 20]]
    for annotation, number in zip(first, (1, 2), strict=True):
        assert np.array_equal(coco.annToMask(annotation), photos == number)
    assert {p.as_posix() for p in Path("predictions/pictures").rglob("*.png")} == {
        "predictions/pictures/a.png",
        "predictions/pictures/sub/b.png",
    }
    output = capsys.readouterr().out
    assert "images: 2\nobjects: 4\npictures: predictions/pictures\n" in output


def test_weights_that_are_not_finite_are_refused(photos):
    weights = {"a.weight": torch.tensor([0, torch.nan]), "b": torch.ones(1)}
    torch.save({"state_dict": weights, "meta": {}}, "exact.pth")
    with pytest.raises(CheckpointError, match=r"exact\.pth holds NaN or infinite .* in a\.weight,"):
        predict()
    assert not Path("predictions", "predictions.json").exists()


def test_threshold_and_no_pictures(photos):
    code, content = predict("--score-thr", "0.2", "--no-pictures")
    assert [a["category_id"] for a in content["annotations"]] == [2, 3, 3, 2, 3]
    assert not Path("predictions", "pictures").exists()


def test_images_that_cannot_be_read_are_named(photos, capsys):
    Path("photos", "c.png").write_bytes(Path("photos", "a.png").read_bytes()[:300])
    code, content = predict()
    assert code == 1
    assert len(content["images"]) == 2
    error = capsys.readouterr().err
    assert "1 of 3 images could not be read: photos/c.png " in error


def test_a_video_comes_out_drawn(photos):
    writer = cv2.VideoWriter("clip.avi", cv2.VideoWriter_fourcc(*"FFV1"), 12, (170, 120))
    for _ in range(3):
        writer.write(as_image(photos))
    writer.release()
    assert command.main(["exact.py", "exact.pth", "clip.avi"]) == 0
    content = json.loads(Path("predictions", "predictions.json").read_text())
    assert [image["frame_id"] for image in content["images"]] == [0, 1, 2]
    assert len(content["annotations"]) == 6
    video = cv2.VideoCapture("predictions/pictures/clip.mp4")
    assert (video.get(cv2.CAP_PROP_FRAME_COUNT), video.get(cv2.CAP_PROP_FPS)) == (3, 12)
    _, frame = video.read()
    assert frame.shape == (120, 170, 3) and frame[20, 100].max() > 30  # tinted


def png_of(width, height):
    """A PNG whose header states a size, without the pixels."""
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", b"x")]
    parts.append((b"IEND", b""))
    crcs = (struct.pack(">I", zlib.crc32(name + data)) for name, data in parts)
    chunks = (struct.pack(">I", len(data)) + name + data for name, data in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(b"".join, zip(chunks, crcs, strict=True)))


BAD_IMAGES = {
    "bomb": lambda: png_of(60_000, 60_000),  # Pillow raises DecompressionBombError
    "larger-than-memory": lambda: png_of(2**31 - 1, 2**31 - 1),
    "no-pixels": lambda: png_of(0, 0),
    "text": lambda: b"not an image",
    "tiff": lambda: b"II*\0" + b"\xff" * 64,
    "gif": lambda: b"GIF89a" + bytes(3),
}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning:PIL")
@pytest.mark.parametrize("name", BAD_IMAGES)
def test_an_image_that_no_decoder_takes_does_not_end_the_run(photos, capsys, name):
    Path("photos", "b.png").write_bytes(BAD_IMAGES[name]())
    code, content = predict()
    assert code == 1
    assert [i["file_name"] for i in content["images"]] == ["photos/a.png", "photos/sub/b.png"]
    assert len(content["annotations"]) == 4
    errors = capsys.readouterr().err
    assert "1 of 3 images could not be read: photos/b.png " in errors


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()], ids=str)
def test_an_error_loses_nothing_that_was_predicted_before(photos, monkeypatch, error):
    def add(self, name, *arguments):
        if name == "sub/b":
            raise error
        return wanted(self, name, *arguments)

    wanted = PredictionFiles.add
    monkeypatch.setattr(PredictionFiles, "add", add)
    with pytest.raises(type(error)):
        predict()
    content = json.loads(Path("predictions", "predictions.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["photos/a.png"]
    assert len(content["annotations"]) == 2


def test_a_single_image_that_cannot_be_read(photos, capsys):
    Path("empty.png").touch()
    assert run_command("predict", ["exact.py", "exact.pth", "empty.png"]) == 1
    output = capsys.readouterr()
    assert "1 of 1 images could not be read: empty.png " in output.err
    assert not Path("predictions").exists() and "predictions:" not in output.out


@pytest.mark.parametrize(
    ("dataset_meta", "names"),
    [
        ({"classes": ("a", "b", "c")}, ["a", "b", "c"]),
        ({}, ["zero", "one", "two"]),
    ],
    ids=["of the checkpoint", "of the config"],
)
def test_names_of_classes(photos, dataset_meta, names):
    torch.save({"state_dict": {}, "meta": {"dataset_meta": dataset_meta}}, "exact.pth")
    _, content = predict("--no-pictures")
    assert [category["name"] for category in content["categories"]] == names


def narrow(name, **extra):
    """Writes a config with a narrow backbone and a checkpoint of random weights for it."""
    Path("narrow.py").write_text(f"_base_ = '{find_config(name)}'\nmodel = {extra}\n")
    from mmengine.registry import init_default_scope

    cfg = Config.fromfile("narrow.py")
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    classes = tuple("abcdef" if cfg.default_scope == "mmdet" else "abcdefg")
    torch.save(
        {"state_dict": model.state_dict(), "meta": {"dataset_meta": {"classes": classes}}},
        "narrow.pth",
    )


@pytest.fixture
def photo(photos):
    pixels = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    cv2.imwrite("photo.png", pixels)


def test_boxes_and_masks_equal_mmdets_own(photo):
    """The oracle: mmdet's `inference_detector`."""
    from mmdet.apis import inference_detector, init_detector

    test_cfg = dict(rpn=dict(max_per_img=30), rcnn=dict(score_thr=0.02, max_per_img=8))
    neck = dict(in_channels=[8, 16, 32, 64])
    narrow("mask_rcnn_swin_mini_shapes", backbone=NARROW, neck=neck, test_cfg=test_cfg)
    assert command.main(["narrow.py", "narrow.pth", "photo.png", "--score-thr", "0"]) == 0
    coco = COCO("predictions/predictions.json")
    model = init_detector("narrow.py", "narrow.pth", device="cpu", palette="random")
    expected = inference_detector(model, "photo.png").pred_instances
    found = coco.imgToAnns[1]
    assert len(found) == len(expected) == 8
    x, y, width, height = np.array([a["bbox"] for a in found]).T
    boxes = np.stack([x, y, x + width, y + height], axis=1)
    np.testing.assert_allclose(boxes, expected.bboxes, atol=0.02)
    np.testing.assert_allclose([a["score"] for a in found], expected.scores, atol=1e-4)
    assert [a["category_id"] - 1 for a in found] == expected.labels.tolist()
    for annotation, mask in zip(found, expected.masks.numpy(), strict=True):
        assert np.array_equal(coco.annToMask(annotation), mask)


def test_panoptic_maps_equal_mmdets_own(photo, capsys):
    """The oracle: mmdet's `inference_detector`, whose maps are classes plus 1000 times objects."""
    from mmdet.apis import inference_detector, init_detector

    kinds = dict(num_things_classes=4, num_stuff_classes=2)
    weights = dict(class_weight=[1.0] * 6 + [0.1])
    head = dict(
        **kinds,
        in_channels=[8, 16, 32, 64],
        num_queries=9,
        loss_cls=weights,
        pixel_decoder=dict(encoder=dict(num_layers=1)),
        transformer_decoder=dict(num_layers=2),
    )
    narrow(
        "mask2former_swin_t_panoptic",
        backbone=NARROW | dict(init_cfg=None),
        panoptic_head=head,
        panoptic_fusion_head=kinds,
        test_cfg=dict(object_mask_thr=0.0, iou_thr=0.0, max_per_image=9),
    )
    resize = "test_dataloader.dataset.pipeline.1.scale=(96,64)"
    argv = ["narrow.py", "narrow.pth", "photo.png", "--cfg-options", resize]
    assert command.main(argv) == 0
    assert "segments: predictions/panoptic\n" in capsys.readouterr().out
    content = json.loads(Path("predictions/predictions.json").read_text())
    (annotation,) = content["annotations"]
    assert len(content["categories"]) == 6
    colours = cv2.imread(f"predictions/panoptic/{annotation['file_name']}")  # BGR
    ids = colours.astype(int) @ [65536, 256, 1]
    cfg = Config.fromfile("narrow.py")
    pipeline = without_annotations(cfg.test_dataloader.dataset.pipeline)
    pipeline[1]["scale"] = (96, 64)
    cfg.test_dataloader.dataset.pipeline = pipeline
    model = init_detector(cfg, "narrow.pth", device="cpu", palette="random")
    expected = inference_detector(model, "photo.png").pred_panoptic_seg.sem_seg[0].numpy()
    seen = {}
    for segment in annotation["segments_info"]:
        (number,) = np.unique(expected[ids == segment["id"]])
        assert (expected == number).sum() == segment["area"]
        assert segment["category_id"] == number % 1000 + 1
        seen[number] = segment["id"]
    assert len(seen) == len(annotation["segments_info"]) >= 2
    assert set(np.unique(expected[ids == 0]) % 1000) <= {6}  # mmdet's number for no class
    assert Path("predictions/pictures/photo.png").exists()


def test_label_maps_equal_mmsegs_own(photo):
    """The oracle: mmseg's `inference_model`."""
    from mmseg.apis import inference_model, init_model

    head = dict(channels=8, norm_cfg=dict(type="GN", num_groups=2))
    narrow(
        "upernet_swin_mini_shapes",
        backbone=NARROW,
        decode_head=dict(in_channels=[8, 16, 32, 64], **head),
        auxiliary_head=dict(in_channels=32, **head),
    )
    assert command.main(["narrow.py", "narrow.pth", "photo.png", "--out", "found"]) == 0
    labels = cv2.imread("found/labels/photo.png", cv2.IMREAD_UNCHANGED)
    model = init_model("narrow.py", "narrow.pth", device="cpu")
    expected = inference_model(model, "photo.png").pred_sem_seg.data[0].numpy()
    assert len(np.unique(expected)) > 1
    assert np.array_equal(labels, expected)
    content = json.loads(Path("found/predictions.json").read_text())
    assert content["images"][0]["label_map"] == "labels/photo.png"
    assert Path("found/pictures/photo.png").exists()
    with pytest.raises(ConfigError, match="--score-thr is for detectors"):
        command.main(["narrow.py", "narrow.pth", "photo.png", "--score-thr", "0.5"])


def test_weights_of_another_model_are_refused(photo):
    neck = dict(in_channels=[8, 16, 32, 64])
    narrow("mask_rcnn_swin_mini_shapes", backbone=NARROW, neck=neck)
    weights = torch.load("narrow.pth")["state_dict"]
    backbone = {key: value for key, value in weights.items() if key.startswith("backbone.")}
    torch.save({"state_dict": backbone}, "backbone.pth")
    with pytest.raises(CheckpointError, match="lacks .* weights of the model"):
        command.main(["narrow.py", "backbone.pth", "photo.png"])
    weights["rpn_head.rpn_cls.bias"] = torch.zeros(7)
    torch.save({"state_dict": weights}, "other.pth")
    with pytest.raises(CheckpointError, match="rpn_head.rpn_cls.bias is 7 there and 1 in the"):
        command.main(["narrow.py", "other.pth", "photo.png"])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["none.png"], PredictError, "there is no image or folder none.png"),
        (["photos", "--tta", "--sliced"], ConfigError, "do not go together"),
        (["photos", "--device", "tpu9"], ConfigError, "device tpu9: must be such as cpu, cuda"),
        (["photos", "--device", "cuda:99"], ConfigError, "this machine has . GPUs"),
        (
            ["photos", "--cfg-options", "test_dataloader=None"],
            ConfigError,
            "has no test_dataloader, whose pipeline images go through",
        ),
    ],
    ids=["image", "views", "device", "gpu", "pipeline"],
)
def test_refused(photos, arguments, error, message):
    with pytest.raises(error, match=message):
        command.main(["exact.py", "exact.pth", *arguments])


def test_threshold_out_of_range(photos, capsys):
    with pytest.raises(SystemExit):
        command.main(["exact.py", "exact.pth", "photos", "--score-thr", "30"])
    assert "must be from 0 to 1, got 30" in capsys.readouterr().err


def test_classes_without_names_are_refused(photos):
    text = EXACT.replace("'zero', 'one', 'two'", "")
    Path("exact.py").write_text(text)
    with pytest.raises(ConfigError, match="neither the checkpoint nor the config names"):
        predict()


def test_annotations_are_left_out_within_views_too():
    load, pack = dict(type="LoadImageFromFile"), dict(type="PackSegInputs")
    labels = dict(type="LoadAnnotations")
    flips = [dict(type="RandomFlip", prob=0.0), dict(type="RandomFlip", prob=1.0)]
    steps = [load, labels, dict(type="TestTimeAug", transforms=[flips, [labels], [pack]])]
    assert without_annotations(steps) == [
        load,
        dict(type="TestTimeAug", transforms=[flips, [pack]]),
    ]
