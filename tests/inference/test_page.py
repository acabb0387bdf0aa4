"""The page to try a model on: what it draws, by gradio's own client and in a browser."""

import json
from pathlib import Path
from urllib.request import urlopen

import chromium
import cv2
import numpy as np
import pytest
import torch
from id_map_detector import IdMapDetector, as_image
from mmengine.registry import MODELS
from PIL import Image

import swin_mm
from swin_mm.inference import page
from swin_mm.inference.prediction import Prediction
from swin_mm.inference.sources import PredictError
from swin_mm.structures import Objects, Segments, to_runs

CONFIG = """
default_scope = 'mmdet'
model = dict(type='IdMapDetector')
test_dataloader = dict(dataset=dict(
    type='CocoDataset',
    metainfo=dict(classes=('zero', 'one', 'two'), palette=[(9, 9, 9), (255, 0, 0), (0, 0, 255)]),
    pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale_factor=1.0, interpolation='nearest'),
        dict(type='PackDetInputs')]))
"""
TABLE = [["one", 0.99, 50.0, 25.0, 350.0, 100.0], ["two", 0.98, 75.0, 150.0, 150.0, 200.0]]


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A detector that is always right, and in the current folder an image and a video for it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(MODELS._module_dict, "IdMapDetector", IdMapDetector)
    Path("exact.py").write_text(CONFIG)
    torch.save({"state_dict": {}, "meta": {}}, "exact.pth")
    numbers = np.zeros((300, 450), dtype=np.uint8)
    numbers[25:100, 50:350] = 1
    numbers[150:200, 75:150] = 2
    cv2.imwrite("a.png", as_image(numbers))
    video = cv2.VideoWriter("v.avi", cv2.VideoWriter.fourcc(*"FFV1"), 10, (450, 300))
    for step in range(3):
        video.write(as_image(np.roll(numbers, 5 * step, axis=1)))
    video.release()
    Path("notes.txt").write_text("no image")
    Path("broken.mp4").write_text("no video")
    return swin_mm.load("exact.py", "exact.pth", device="cpu")


def test_views_of_a_detector(model):
    found = model.predict("a.png")
    drawn = {view: page.show(found, view) for view in page.VIEWS}
    inside, background = (60, 200), (280, 400)  # of the first object
    np.testing.assert_array_equal(drawn["all"], found.plot())
    for view, is_tinted in (("all", True), ("boxes", False), ("masks", True), ("label map", True)):
        reddish = drawn[view][inside].astype(int)
        assert (reddish[0] > reddish[2] + 20) == is_tinted, view
        assert drawn[view][background].max() < 20
    assert drawn["boxes"][50:80, 345:356, 0].max() > 100  # the right side of its box, dotted
    assert page.list_found(found) == (page.COLUMNS[Objects], TABLE)


def test_what_a_model_does_not_give_is_said(model):
    found = model.predict("a.png")
    boxes = Objects(found.content.labels, found.content.boxes, found.content.scores)
    bare = Prediction(boxes, found.image, found.classes, found.palette)
    labels = np.zeros(found.image.shape[:2], dtype=np.int64)
    mapped = Prediction(labels, found.image, found.classes, found.palette)
    for prediction, view in ((bare, "masks"), (bare, "label map"), (mapped, "boxes")):
        with pytest.raises(PredictError, match=f"this model gives no {view}"):
            page.show(prediction, view)


def test_tables_of_segments_and_label_maps(model):
    image = np.zeros((4, 5, 3), dtype=np.uint8)
    labels = np.full((4, 5), 255)
    labels[:2], labels[2, 0] = 1, 2
    mapped = Prediction(labels, image, model.classes, model.palette)
    assert page.list_found(mapped)[1] == [["one", 0.5], ["two", 0.05]]
    ids = np.array([[0, 1, 1], [2, 2, 2]], dtype=np.int32)
    segments = Prediction(
        Segments(ids, np.array([2, 0])), image[:2, :3], model.classes, model.palette
    )
    assert page.list_found(segments)[1] == [["two", 2], ["zero", 3]]


def test_masks_of_a_label_map_lie_as_their_scores(model):
    masks = np.zeros((2, 80, 80), dtype=bool)
    masks[0, :40], masks[1, 20:] = True, True
    boxes = np.array([[0, 0, 80, 40], [0, 20, 80, 80]], dtype=np.float32)
    content = Objects(np.array([1, 2]), boxes, np.array([0.9, 0.5]), to_runs(masks))
    image = np.zeros((80, 80, 3), dtype=np.uint8)
    drawn = page.show(Prediction(content, image, model.classes, model.palette), "label map")
    assert drawn[30, 40, 0] > drawn[30, 40, 2] and drawn[60, 40, 2] > drawn[60, 40, 0]


@pytest.fixture
def address(model):
    """The page of the model, served."""
    gradio = pytest.importorskip("gradio", reason="the page needs the extra [demo]")
    built = page.build_page(model, "exact")
    assert isinstance(built, gradio.Blocks)
    yield page.serve_page(built, wait=False)
    built.close()


def test_by_gradios_own_client(address, model):
    import gradio_client

    client = gradio_client.Client(address, verbose=False)

    def predict(file, score=0.3, view="all"):
        return client.predict(gradio_client.handle_file(file), score, view, api_name="/predict")

    picture, video, table, files = predict("a.png", 0.985, "masks")
    found = model.predict("a.png", score_thr=0.985)
    expected = page.show(found, "masks")
    np.testing.assert_array_equal(np.asarray(Image.open(picture["value"]).convert("RGB")), expected)
    assert (table["data"], video["value"]) == (TABLE[:1], None)
    assert [Path(file).name for file in files] == ["a_found.png", "a_found.json"]
    (written,) = json.loads(Path(files[1]).read_text())
    assert (written["name"], written["bbox"]) == ("one", [50, 25, 300, 75])

    picture, video, table, _ = predict("v.avi")
    assert picture["visible"] is False
    assert table["data"] == [["one", 3, 3], ["two", 3, 3]]
    played = cv2.VideoCapture(str(video["value"]))
    assert played.get(cv2.CAP_PROP_FRAME_COUNT) == 3

    with pytest.raises(Exception, match=r"^notes.txt is neither an image nor a video"):
        predict("notes.txt")
    with pytest.raises(Exception, match="OpenCV cannot open broken.mp4"):
        predict("broken.mp4")


def test_it_is_for_this_machine_and_asks_for_nothing_else(address):
    assert address.startswith("http://127.0.0.1:")
    with urlopen(address) as answer:
        assert answer.headers["content-security-policy"] == page.POLICY
    assert "http:" not in page.POLICY and "https:" not in page.POLICY


@pytest.mark.skipif(chromium.PROGRAM is None, reason="needs Debian's chromium")
def test_in_a_browser(address, model, tmp_path):
    with chromium.Chromium(tmp_path / "profile") as browser:
        browser.call("Page.navigate", url=address)
        browser.wait_for("!!document.querySelector('#input input[type=file]')")
        browser.choose_file("#input input[type=file]", tmp_path / "a.png")
        browser.wait_for("!!document.querySelector('#input a[href*=\"a.png\"]')")  # it is there
        browser.evaluate("document.querySelector('#predict').click()")
        shown = "document.querySelector('#picture img')"
        browser.wait_for(f"{shown} && {shown}.naturalWidth > 0")
        (tmp_path / "shown.png").write_bytes(browser.fetch(browser.evaluate(f"{shown}.src")))
        table = browser.wait_for("document.querySelector('#table').innerText")
        requests = browser.requests()
    drawn = np.asarray(Image.open(tmp_path / "shown.png").convert("RGB"))
    # Both boxes, with masks, labels and all.
    np.testing.assert_array_equal(drawn, model.predict("a.png").plot())
    assert table.count("one") == table.count("two") == 1
    elsewhere = [url for url in requests if not url.startswith((address, "data:", "blob:"))]
    assert requests and not elsewhere
