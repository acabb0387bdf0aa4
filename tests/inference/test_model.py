"""`swin_mm.load` and `Model.predict`: every kind of source, and what comes out."""

import io
import threading
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import torch
from id_map_detector import IdMapDetector, as_image, score_of
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import CheckpointLoader
from PIL import Image
from torch import nn
from zoo_server import serve

import swin_mm
from swin_mm.checkpoint import CheckpointError
from swin_mm.configs import ConfigError
from swin_mm.datasets.reader import UnreadableError
from swin_mm.inference.model import Model
from swin_mm.inference.sources import PredictError, open_video

DETECTOR = """
default_scope = 'mmdet'
model = dict(type='IdMapDetector')
test_dataloader = dict(dataset=dict(
    type='CocoDataset',
    metainfo=dict(classes=('zero', 'one', 'two')),
    pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale_factor=1.0, interpolation='nearest'),
        dict(type='PackDetInputs')]))
"""
SEGMENTOR = """
default_scope = 'mmseg'
model = dict(type='RedSegmentor')
test_dataloader = dict(dataset=dict(
    type='BaseSegDataset',
    metainfo=dict(classes=('dark', 'red'), palette=[(0, 0, 0), (255, 0, 0)]),
    pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations'),
        dict(type='PackSegInputs')]))
"""


class RedSegmentor(nn.Module):
    """Labels pixels 1 where red, the last band as OpenCV loads it, is above 100."""

    def test_step(self, data):
        from mmengine.structures import PixelData

        for image, sample in zip(data["inputs"], data["data_samples"], strict=True):
            sample.pred_sem_seg = PixelData(data=(image[2:] > 100).long())
        return data["data_samples"]


@pytest.fixture
def numbers() -> np.ndarray:
    numbers = np.zeros((60, 90), dtype=np.uint8)
    numbers[5:20, 10:70] = 1
    numbers[30:40, 15:30] = 2
    return numbers


@pytest.fixture
def detector(numbers, tmp_path, monkeypatch) -> Model:
    """A detector that is always right, and a folder of two images for it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(MODELS._module_dict, "IdMapDetector", IdMapDetector)
    monkeypatch.setitem(MODELS._module_dict, "RedSegmentor", RedSegmentor)
    Path("exact.py").write_text(DETECTOR)
    Path("red.py").write_text(SEGMENTOR)
    torch.save({"state_dict": {}, "meta": {}}, "exact.pth")
    Path("photos").mkdir()
    cv2.imwrite("photos/a.png", as_image(numbers))
    cv2.imwrite("photos/b.png", as_image(numbers[:50]))
    return swin_mm.load("exact.py", "exact.pth", device="cpu")


def check(found, numbers):
    """Whether a prediction is that of the first image."""
    assert found.boxes.tolist() == [[10, 5, 70, 20], [15, 30, 30, 40]]
    assert found.labels.tolist() == [1, 2] and found.names == ["one", "two"]
    np.testing.assert_allclose(found.scores, [score_of(1), score_of(2)], rtol=1e-6)
    assert np.array_equal(found.masks, [numbers == 1, numbers == 2])


SOURCES = {
    "path": lambda rgb: "photos/a.png",
    "Path": lambda rgb: Path("photos/a.png"),
    "array": lambda rgb: rgb,
    "array with alpha": lambda rgb: np.dstack([rgb, rgb[..., 0]]),
    "PIL": Image.fromarray,
    "uint8 tensor": lambda rgb: torch.from_numpy(rgb.copy()).movedim(2, 0),
    "float tensor": lambda rgb: torch.from_numpy(rgb / 255).movedim(2, 0),
}


@pytest.mark.parametrize("make", SOURCES.values(), ids=list(SOURCES))
def test_one_image(detector, numbers, make):
    rgb = as_image(numbers)[..., ::-1]
    found = detector.predict(make(rgb))
    check(found, numbers)
    assert np.array_equal(found.image, rgb)
    assert repr(found).endswith(": 1 one, 1 two)") and len(found) == 2


MANY = {
    "list": (lambda rgb: ["photos/a.png", "photos/b.png"], list),
    "arrays": (lambda rgb: [rgb, rgb[:50]], list),
    "folder": (lambda rgb: "photos", None),
    "pattern": (lambda rgb: "photos/*.png", None),
    "iterable": (lambda rgb: (image for image in (rgb, "photos/b.png")), None),
}


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize(("make", "kind"), MANY.values(), ids=list(MANY))
def test_several_images(detector, numbers, make, kind, batch_size):
    found = detector.predict(make(as_image(numbers)[..., ::-1]), batch_size=batch_size)
    assert isinstance(found, list) == (kind is list)
    first, second = found
    check(first, numbers)
    assert second.masks.shape == (2, 50, 90)


def test_an_address(detector, numbers):
    with serve(Path("photos")) as address:
        check(detector.predict(f"{address}/a.png"), numbers)
        with pytest.raises(PredictError, match=r"cannot download .*/none.png: .*404"):
            detector.predict(f"{address}/none.png")


def test_a_video(detector):
    writer = cv2.VideoWriter("a.avi", cv2.VideoWriter_fourcc(*"FFV1"), 10, (90, 60))
    for left in (10, 20, 30):
        frame = np.zeros((60, 90), dtype=np.uint8)
        frame[10:30, left : left + 20] = 1
        writer.write(as_image(frame))
    writer.release()
    found = list(detector.predict("a.avi"))
    assert [one.boxes.tolist() for one in found] == [
        [[left, 10, left + 20, 30]] for left in (10, 20, 30)
    ]
    assert found[2].name == "a.avi, frame 2"


def test_a_label_map(detector):
    model = swin_mm.load("red.py", "exact.pth", device="cpu")
    image = np.zeros((20, 30, 3), dtype=np.uint8)
    image[5:10, :, 0] = 200
    found = model.predict(image)
    assert np.array_equal(found.label_map, image[..., 0] // 200)
    assert np.array_equal(found.image, image)
    cv2.imwrite("red.png", image[..., ::-1])
    from_file = model.predict("red.png")
    assert np.array_equal(from_file.image, image)
    assert np.array_equal(from_file.label_map, found.label_map)
    assert found.boxes is found.masks is found.labels is None
    assert found.names == ["dark", "red"] and repr(found) == "Prediction(image: dark, red)"
    assert found.plot().shape[1:] == (30, 3)
    with pytest.raises(ValueError, match="no objects; use label_map"):
        found.to_coco()


def test_threshold_views_and_slices(detector, numbers):
    assert detector.predict("photos/a.png", score_thr=0.9).boxes is not None
    assert len(detector.predict("photos/a.png", score_thr=1)) == 0
    check(detector.predict("photos/a.png", sliced=dict(slice_height=40, slice_width=40)), numbers)
    assert len(detector.predict("photos/a.png", tta=True)) >= 2
    check(detector.predict("photos/a.png"), numbers)  # as before


@pytest.mark.parametrize("options", [dict(tta=True), dict(sliced=dict(slice_height=40))], ids=str)
def test_views_of_an_image_leave_the_next_ones_alone(detector, numbers, options):
    before = detector.cfg.to_dict()
    list(detector.predict(["photos/a.png"], **options))
    assert detector.cfg.to_dict() == before
    check(detector.predict("photos/a.png"), numbers)
    check(detector.predict("photos/a.png", sliced=dict(slice_height=40, slice_width=40)), numbers)


def test_a_config_that_is_loaded_stays_as_it_is(detector, numbers):
    cfg = Config.fromfile("exact.py")
    before = cfg.to_dict()
    options = {"test_dataloader.dataset.metainfo.classes": ["x", "y", "z"]}
    model = swin_mm.load(cfg, "exact.pth", "cpu", cfg_options=options)
    assert model.predict("photos/a.png").names == ["y", "z"] and cfg.to_dict() == before


def test_pictures_and_formats(detector, numbers):
    found = detector.predict("photos/a.png")
    assert found.plot().shape == (60, 90, 3) and found.plot().dtype == np.uint8
    saved = cv2.imread(str(found.save("out/a.png")))[..., ::-1]
    assert np.array_equal(saved, found.plot())
    first, _ = found.to_coco()
    assert (first["bbox"], first["category_id"], first["area"]) == ([10, 5, 60, 15], 2, 900)
    detections = found.to_supervision()
    assert detections.xyxy.tolist() == found.boxes.tolist()
    assert detections.class_id.tolist() == [1, 2] and detections["class_name"].tolist()[0] == "one"
    assert np.array_equal(detections.mask, found.masks)
    np.testing.assert_array_equal(detections.confidence, found.scores)
    with pytest.raises(ValueError, match="use a suffix such as .png"):
        found.save("a.nothing")


@pytest.mark.parametrize("color_type", ["color", "color_ignore_orientation"])
def test_pictures_are_turned_only_as_in_training(detector, numbers, color_type):
    """EXIF says that the camera lay on its side; the numbers are as the model was trained."""
    options = {"test_dataloader.dataset.pipeline.0.color_type": color_type}
    model = swin_mm.load("exact.py", "exact.pth", device="cpu", cfg_options=options)
    stored = as_image(numbers)[..., ::-1]
    if color_type == "color":
        stored = np.rot90(stored)  # turned by 90 degrees clockwise it is upright
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(stored).save("turned.png", exif=exif)
    picture = Image.open("turned.png")
    picture.load()
    check(model.predict(picture), numbers)


def test_a_checkpoint_carries_its_config(detector, numbers, monkeypatch):
    text = Config.fromfile("exact.py").pretty_text
    torch.save({"state_dict": {}, "meta": {"cfg": text}}, "whole.pth")
    loading = Mock(wraps=CheckpointLoader.load_checkpoint)
    monkeypatch.setattr(CheckpointLoader, "load_checkpoint", loading)
    check(swin_mm.load("whole.pth", device="cpu").predict("photos/a.png"), numbers)
    assert loading.call_count == 1  # the file is read once
    Path("epoch_7").mkdir()  # as of a sharded training
    torch.save({"checkpoint": torch.load("whole.pth"), "divided": []}, "epoch_7/index.pth")
    check(swin_mm.load("epoch_7", device="cpu").predict("photos/a.png"), numbers)
    torch.save({"state_dict": {}, "meta": {"cfg": "x = open('touched', 'w')"}}, "evil.pth")
    with pytest.raises(CheckpointError, match="holds code"):
        swin_mm.load("evil.pth")
    assert not Path("touched").exists()
    with pytest.raises(CheckpointError, match="carries no config: give one"):
        swin_mm.load("exact.pth")


def test_classes_of_a_data_set_that_the_packages_know(detector):
    Path("coco.py").write_text(
        DETECTOR.replace("metainfo=dict(classes=('zero', 'one', 'two')),", "")
    )
    model = swin_mm.load("coco.py", "exact.pth", device="cpu")
    assert len(model.classes) == 80 and model.classes[0] == "person"


def test_models_of_two_packages_in_threads(detector, numbers):
    segmentor = swin_mm.load("red.py", "exact.pth", device="cpu")
    assert DefaultScope.get_current_instance() is None
    rgb, results = as_image(numbers)[..., ::-1], {}

    def work(name, model):
        results[name] = [model.predict(rgb) for _ in range(5)]

    threads = [
        threading.Thread(target=work, args=pair)
        for pair in (("detector", detector), ("segmentor", segmentor))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for found in results["detector"]:
        check(found, numbers)
    for found in results["segmentor"]:
        assert np.array_equal(found.label_map, rgb[..., 0] > 100)


def test_models_of_two_packages_are_built_one_at_a_time(detector, monkeypatch):
    """A thread that loads a segmentor while a detector is being built does not change its scope."""
    seen, is_segmentor_built, is_detector_done = [], threading.Event(), threading.Event()

    class Detector(IdMapDetector):
        def __init__(self):
            super().__init__()
            other.start()
            is_segmentor_built.wait(1)  # in vain where they wait for one another
            seen.append(DefaultScope.get_current_instance().scope_name)
            is_detector_done.set()

    class Segmentor(RedSegmentor):
        def __init__(self):
            super().__init__()
            seen.append(DefaultScope.get_current_instance().scope_name)
            is_segmentor_built.set()
            is_detector_done.wait(1)

    monkeypatch.setitem(MODELS._module_dict, "IdMapDetector", Detector)
    monkeypatch.setitem(MODELS._module_dict, "RedSegmentor", Segmentor)
    other = threading.Thread(target=swin_mm.load, args=("red.py", "exact.pth", "cpu"))
    swin_mm.load("exact.py", "exact.pth", "cpu")
    other.join()
    assert seen == ["mmdet", "mmseg"]
    assert DefaultScope.get_current_instance() is None


BAD = {
    "no file": ("none.png", PredictError, "there is no image or folder none.png"),
    "no match": ("none/*.png", PredictError, "no file matches none"),
    "no video": ("none.mp4", PredictError, "there is no video none.mp4"),
    "float array": (np.zeros((9, 9, 3)), UnreadableError, r"must be uint8 .* float64 \(9, 9, 3\)"),
    "bands": (np.zeros((9, 9, 5), np.uint8), UnreadableError, r"uint8 \(9, 9, 5\)"),
    "float tensor": (torch.full((3, 9, 9), 2.0), PredictError, "values from 0 to 1, got 2 to 2"),
    "flat": (np.zeros(9, np.uint8), PredictError, r"must be \(H, W\)"),
    "bands last": (torch.zeros(8, 9, 3), PredictError, r"got \(8, 9, 3\), .*movedim\(-1, -3\)"),
    "number": (1.5, TypeError, "got float"),
    "truth": (True, TypeError, "got bool"),
    "bytes": (b"\x89PNG", TypeError, "got bytes; open encoded images with PIL.Image.open"),
    "stream": (io.BytesIO(b"\x89PNG"), TypeError, "got BytesIO"),
    "dict": (dict(image="photos/a.png"), TypeError, "got dict"),
}


@pytest.mark.parametrize(("source", "error", "message"), BAD.values(), ids=list(BAD))
def test_bad_sources_are_refused(detector, source, error, message):
    with pytest.raises(error, match=message):
        list(detector.predict(source))


def test_opencv_4_is_silent_too_while_a_video_is_opened(monkeypatch):
    """Its level of logging is elsewhere than OpenCV 5's."""
    levels = [3]
    monkeypatch.setattr(cv2, "getLogLevel", lambda: levels[-1], raising=False)
    monkeypatch.setattr(cv2, "setLogLevel", levels.append, raising=False)
    with pytest.raises(PredictError, match="cannot open camera 99"):
        open_video(99)
    assert levels == [3, 0, 3]


def test_bad_files_and_options(detector):
    Path("cut.png").write_bytes(Path("photos/a.png").read_bytes()[:200])
    with pytest.raises(UnreadableError, match="cut.png is damaged or cut short"):
        detector.predict("cut.png")
    with pytest.raises(ConfigError, match="do not go together"):
        detector.predict("photos/a.png", tta=True, sliced=True)
    with pytest.raises(ConfigError, match="score_thr must be from 0 to 1"):
        detector.predict("photos/a.png", score_thr=30)
    with pytest.raises(ConfigError, match="give its trained weights too"):
        swin_mm.load("exact.py")
    with pytest.raises(ConfigError, match="no weights are published for upernet_swin_mini_shapes"):
        swin_mm.load("upernet_swin_mini_shapes")
    with pytest.raises(PredictError, match="cannot open camera 99$"):
        next(detector.predict(99))
    with pytest.raises(ConfigError, match="device tpu"):
        swin_mm.load("exact.py", "exact.pth", device="tpu")
