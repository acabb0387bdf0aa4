"""What the runtime does around a file, beside the libraries that it does without."""

import cv2
import mmcv
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask
from mmdet.models.seg_heads import MaskFormerFusionHead
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from PIL import Image

from swin_mm.export.runtime import ExportedModel, paste_masks, read_image, resize_bilinear
from swin_mm.structures import read_segments


@pytest.mark.parametrize(
    "size", [(60, 91), (30, 41), (17, 200), (120, 182), (61, 90), (8, 9)], ids=str
)
def test_resizing_equals_opencv(size):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 91, 3), dtype=np.uint8)
    expected = cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_LINEAR)
    found = resize_bilinear(pixels, *size)
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert (found != expected).mean() < 0.01


def test_pasted_masks_equal_mmdets():
    rng = np.random.default_rng(0)
    masks = rng.random((6, 28, 28), dtype=np.float32)
    corner, sides = rng.uniform(-10, 60, (6, 2)), rng.uniform(3, 70, (6, 2))
    boxes = np.concatenate([corner, corner + sides], axis=1).astype(np.float32)
    expected, _ = _do_paste_mask(
        torch.from_numpy(masks)[:, None], torch.from_numpy(boxes), 80, 100, skip_empty=False
    )
    found = paste_masks(masks, boxes, (80, 100), 0.5)
    # Values that are one half up to rounding may be on either side.
    unsure = (expected - 0.5).abs().numpy() < 1e-5
    assert ((found == (expected.numpy() >= 0.5)) | unsure).all()
    assert found.any((1, 2)).sum() >= 4


@pytest.mark.parametrize("own_pixels", [False, True])
def test_segments_equal_mmdets(own_pixels):
    cfg = ConfigDict(object_mask_thr=0.5, iou_thr=0.4, filter_low_score=own_pixels)
    head = MaskFormerFusionHead(num_things_classes=3, num_stuff_classes=2, test_cfg=cfg)
    generator = torch.Generator().manual_seed(0)
    cls = 4 * torch.randn(1, 20, 6, generator=generator)
    masks = 4 * torch.randn(1, 20, 6, 8, generator=generator) - 5  # a tenth is on
    frame, inner, shape = (96, 128), (90, 120), (45, 70)
    whole = F.interpolate(masks, frame, mode="bilinear")
    sample = DetDataSample(metainfo=dict(img_shape=inner, ori_shape=shape))
    (predicted,) = head.predict(cls, whole, [sample], rescale=True)
    expected = read_segments(predicted["pan_results"], num_classes=5)

    model = ExportedModel.__new__(ExportedModel)
    rule = dict(things=3, score=0.5, share=0.4, own_pixels=own_pixels)
    model.metadata = dict(classes=list("abcde"), mask_frame=frame, panoptic=rule)
    scores, labels = (values.numpy() for values in cls.softmax(-1).max(-1))
    outputs = {"scores": scores, "labels": labels, "mask_logits": masks.numpy()}
    found = model.finish(outputs, inner, shape)
    # Some queries have no class, too low a score, or nearly all of their pixels taken.
    assert 4 <= len(expected) < ((labels < 5) & (scores > 0.5)).sum() < 18
    assert found.labels.tolist() == expected.labels.tolist()
    assert (found.segments != expected.ids).mean() < 1e-3  # ties, up to rounding


def test_a_box_without_area_or_outside_has_an_empty_mask():
    boxes = np.array([[5, 5, 5, 9], [200, 200, 220, 220]], np.float32)
    assert not paste_masks(np.ones((2, 28, 28), np.float32), boxes, (50, 50), 0.5).any()


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), 3], ids=str
)
def test_what_is_no_image_is_refused(image):
    with pytest.raises(ValueError, match="an image must be"):
        read_image(image)


def draw(kind: str) -> tuple[Image.Image, str]:
    """A picture and the suffix of its file."""
    pixels = np.random.default_rng(1).integers(0, 256, (6, 9, 4), dtype=np.uint8)
    if kind == "16 bits":
        return Image.fromarray(pixels[..., 0].astype(np.uint16) * 257), ".png"
    if kind == "palette":
        return Image.fromarray(pixels[..., :3]).convert("P"), ".png"
    return Image.fromarray(pixels[..., 0] if kind == "grey" else pixels), ".png"


@pytest.mark.parametrize("kind", ["16 bits", "palette", "grey", "alpha"])
def test_files_and_pictures_have_the_pixels_of_training(tmp_path, kind):
    picture, suffix = draw(kind)
    path = tmp_path / f"a{suffix}"
    picture.save(path)
    expected = mmcv.imread(str(path), flag="color", channel_order="rgb")
    assert np.array_equal(read_image(path), expected)
    assert np.array_equal(read_image(picture), expected)


def test_pictures_of_32_bits_are_refused():
    for values in (np.full((4, 4), 70000, np.int32), np.ones((4, 4), np.float32)):
        with pytest.raises(ValueError, match="must have 8 or 16 bits"):
            read_image(Image.fromarray(values))


@pytest.mark.parametrize("flag", ["color", "color_ignore_orientation"])
def test_files_are_turned_only_as_in_training(tmp_path, flag):
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, :8] = 255
    Image.fromarray(pixels).save(path, exif=exif, quality=95)
    found = read_image(path, turn=flag == "color").astype(int)
    expected = mmcv.imread(str(path), flag=flag, channel_order="rgb")
    assert found.shape == expected.shape and np.abs(found - expected).max() < 5


def test_what_is_no_exported_model_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no exported model"):
        ExportedModel(tmp_path / "model.onnx")
    (tmp_path / "model.pth").touch()
    with pytest.raises(ValueError, match=r"an \.onnx, \.xml or \.pt2 file, got model"):
        ExportedModel(tmp_path / "model.pth")


@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".pt2"])
def test_damaged_files_are_refused(tmp_path, suffix):
    if suffix != ".pt2":
        pytest.importorskip("onnxruntime" if suffix == ".onnx" else "openvino")
    path = tmp_path / f"model{suffix}"
    path.with_suffix(".bin").touch()
    path.write_bytes(b"<net" + bytes(range(256)))
    with pytest.raises(ValueError, match=f"model{suffix} cannot be loaded, it may be damaged: ."):
        ExportedModel(path, trust=True)


def test_a_network_of_openvino_without_its_weights_is_told(tmp_path):
    (tmp_path / "model.xml").touch()
    with pytest.raises(FileNotFoundError, match=r"its weights in model\.bin, which is not there"):
        ExportedModel(tmp_path / "model.xml")


def test_a_file_for_several_images_at_a_time_predicts_one():
    """The label map counts the images that the file was given, one after another."""
    model = ExportedModel.__new__(ExportedModel)
    model.metadata = dict(
        size=[8, 9], batch=2, bands=3, min_side=1, inputs=["image"], outputs=["label_map"]
    )
    model._fit = lambda pixels: pixels
    model._pad = lambda pixels, size: pixels
    model._run = lambda inputs: [inputs["image"][..., 0] + 10 * len(inputs["image"])]
    image = np.random.default_rng(0).integers(0, 99, (8, 9, 3), dtype=np.uint8)
    assert (model.predict(image).label_map == image[..., 0] + 20).all()
    with pytest.raises(ValueError, match="the file is for 2 images at a time, got 1"):
        model.run(image[None])
