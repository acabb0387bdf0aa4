"""Files in half precision and in integers, and how accuracy is measured before and after."""

import json
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from mmengine.config import Config
from onnx import helper, numpy_helper
from own_data import NAMES, write_coco
from PIL import Image

from swin_mm.export.evaluate import Evaluation
from swin_mm.export.precision import convert, write_metadata
from swin_mm.export.runtime import ExportedModel, Found
from swin_mm.inference.export import _find_evaluation

SIDE = 16
METADATA = dict(
    precision="float32",
    inputs=["image"],
    outputs=["features"],
    bands=3,
    size=None,
    min_side=1,
    resize=None,
)


@pytest.fixture
def recorded(tmp_path):
    """A convolution, an activation and a product of matrices, the pixels scaled before them."""
    rng = np.random.default_rng(0)
    values = {
        "scale": np.array(1 / 255, np.float32),
        "kernel": rng.normal(size=(8, 3, 3, 3)).astype(np.float32),
        "matrix": rng.normal(size=(8, 4)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "kernel"], ["maps"]),
        helper.make_node("Relu", ["maps"], ["active"]),
        helper.make_node("GlobalAveragePool", ["active"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["rows"]),
        helper.make_node("MatMul", ["rows", "matrix"], ["features"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, [1, "H", "W", 3])],
        [helper.make_tensor_value_info("features", onnx.TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "recorded.onnx")
    return tmp_path / "recorded.onnx"


def images(count):
    rng = np.random.default_rng(1)
    shape = (1, SIDE, SIDE, 3)
    return [{"image": rng.integers(0, 256, shape, dtype=np.uint8)} for _ in range(count)]


@pytest.mark.parametrize("precision", ["half", "int8"])
@pytest.mark.parametrize("name", ["a.onnx", "a.xml"])
def test_lower_precision_is_near_float32(name, precision, recorded, tmp_path):
    if name == "a.xml":
        pytest.importorskip("openvino")
        if precision == "int8":
            pytest.importorskip("nncf")
    file, other = tmp_path / "files" / name, tmp_path / "float32" / name
    convert(recorded, other, "float32", METADATA)
    convert(recorded, file, precision, METADATA | dict(precision=precision), images(8))
    found, expected = (
        ExportedModel(path).run(images(1)[0]["image"])["features"] for path in (file, other)
    )
    assert found.dtype == np.float32
    shift = np.abs(found - expected).max() / np.abs(expected).max()
    assert 0 < shift < (0.005 if precision == "half" else 0.05)


def test_nodes_without_names_get_them_before_casts_do(recorded, tmp_path):
    """onnxruntime 1.23 names casts after their nodes, and reads no file that has a name twice."""
    model = onnx.load(recorded)
    for node in model.graph.node:
        node.name = ""
    onnx.save(model, tmp_path / "nameless.onnx")
    convert(tmp_path / "nameless.onnx", tmp_path / "files" / "a.onnx", "half", METADATA)
    names = [node.name for node in onnx.load(tmp_path / "files" / "a.onnx").graph.node]
    assert all(names) and len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("precision", "kind"), [("half", onnx.TensorProto.FLOAT16), ("int8", onnx.TensorProto.INT8)]
)
def test_only_products_are_lowered_in_onnx_files(precision, kind, recorded, tmp_path):
    file = tmp_path / "files" / "a.onnx"
    convert(recorded, file, precision, METADATA, images(4))
    model = onnx.load(file)
    of = {value.name.removesuffix("_quantized"): value for value in model.graph.initializer}
    assert {name: of[name].data_type for name in ("scale", "kernel", "matrix")} == {
        "scale": onnx.TensorProto.FLOAT,
        "kernel": kind,
        "matrix": kind,
    }
    assert [
        value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)
    ] == [
        onnx.TensorProto.UINT8,
        onnx.TensorProto.FLOAT,
    ]
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}


@pytest.mark.parametrize("name", ["a.onnx", "a.xml"])
def test_metadata_are_replaced(name, recorded, tmp_path):
    if name == "a.xml":
        pytest.importorskip("openvino")
    convert(recorded, tmp_path / "first" / name, "half", METADATA)
    (tmp_path / "second").mkdir()
    changed = METADATA | dict(metrics={"mIoU": [70.0, 69.5]})
    write_metadata(tmp_path / "first" / name, tmp_path / "second" / name, changed)
    assert ExportedModel(tmp_path / "second" / name).metadata == changed


def detection_config(folder):
    steps = [
        dict(type="LoadImageFromFile"),
        dict(type="LoadAnnotations", with_bbox=True),
        dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape")),
    ]
    dataset = dict(
        type="CocoDataset",
        data_root=str(folder),
        ann_file="train.json",
        data_prefix=dict(img="train"),
        metainfo=dict(classes=NAMES),
        pipeline=steps,
        test_mode=True,
    )
    evaluator = dict(type="swin_mm.CocoMetric", ann_file=str(folder / "train.json"))
    loader = dict(dataset=dataset)
    return Config(dict(default_scope="mmdet", val_dataloader=loader, val_evaluator=evaluator))


def test_detections_are_measured_on_the_first_images_alone(tmp_path):
    write_coco(tmp_path, images=6)
    evaluation = Evaluation(detection_config(tmp_path), max_images=4)
    truth = [[[4 + 28 * k, 6 + i, 24 + 28 * k, 26 + i] for k in range(3)] for i in range(6)]

    def find(count):
        """The annotated boxes of the first images, and a box elsewhere in the others."""
        places = iter(truth[:count] + [[[0, 0, 5, 5]] * 3] * 6)

        def predict(image, score_thr):
            assert image.shape == (64, 96, 3) and score_thr == 0
            boxes = np.array(next(places), np.float32)
            return Found(boxes, np.full(3, 0.9, np.float32), np.arange(3))

        return SimpleNamespace(predict=predict)

    assert evaluation(find(4))["coco/bbox_mAP"] == 1.0
    assert 0.4 < evaluation(find(2))["coco/bbox_mAP"] < 0.6


def test_label_maps_are_measured(tmp_path):
    for folder in ("images", "maps"):
        (tmp_path / folder).mkdir()
    truth = np.repeat([[0], [1]], 10, axis=0).repeat(30, axis=1).astype(np.uint8)
    Image.fromarray(truth).save(tmp_path / "maps" / "a.png")
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "images" / "a.png")
    dataset = dict(
        type="BaseSegDataset",
        data_root=str(tmp_path),
        data_prefix=dict(img_path="images", seg_map_path="maps"),
        img_suffix=".png",
        metainfo=dict(classes=("sky", "sea")),
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations"),
            dict(type="PackSegInputs"),
        ],
    )
    evaluator = dict(type="IoUMetric", iou_metrics=["mIoU"])
    loader = dict(dataset=dataset)
    cfg = Config(dict(default_scope="mmseg", val_dataloader=loader, val_evaluator=evaluator))
    found = truth.copy()
    found[:2] = 1  # a fifth of the sky: IoU 8/10, and 10/12 of the sea
    file = SimpleNamespace(predict=lambda image, score_thr: Found(label_map=found))
    assert Evaluation(cfg, 5)(file)["mIoU"] == pytest.approx(50 * (8 / 10 + 10 / 12), abs=0.01)


def panoptic_config(folder):
    """One image of two segments: sky above and a car below."""
    truth = np.repeat([[1], [2]], 10, axis=0).repeat(30, axis=1)
    for split in ("images", "maps"):
        (folder / split).mkdir()
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(folder / "images" / "a.jpg")
    colours = np.dstack([truth, 0 * truth, 0 * truth]).astype(np.uint8)
    Image.fromarray(colours).save(folder / "maps" / "a.png")
    segments = [
        dict(id=number, category_id=category, area=300, iscrowd=0, bbox=[0, top, 30, 10])
        for number, category, top in ((1, 8, 0), (2, 7, 10))
    ]
    content = dict(
        images=[dict(id=5, file_name="a.jpg", height=20, width=30)],
        annotations=[dict(image_id=5, file_name="a.png", segments_info=segments)],
        categories=[dict(id=7, name="car", isthing=1), dict(id=8, name="sky", isthing=0)],
    )
    (folder / "panoptic.json").write_text(json.dumps(content))
    keys = ("img_id", "img_path", "ori_shape", "segments_info", "seg_map_path")
    dataset = dict(
        type="CocoPanopticDataset",
        data_root=str(folder),
        ann_file="panoptic.json",
        data_prefix=dict(img="images", seg="maps"),
        metainfo=dict(classes=("car", "sky"), thing_classes=("car",), stuff_classes=("sky",)),
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadPanopticAnnotations", backend_args=None),
            dict(type="PackDetInputs", meta_keys=keys),
        ],
        test_mode=True,
    )
    files = dict(ann_file=str(folder / "panoptic.json"), seg_prefix=str(folder / "maps"))
    evaluators = [  # objects are not in a panoptic file
        dict(type="CocoPanopticMetric", outfile_prefix=str(folder / "all"), **files),
        dict(type="swin_mm.CocoMetric", ann_file=files["ann_file"]),
    ]
    loader = dict(dataset=dataset)
    return Config(dict(default_scope="mmdet", val_dataloader=loader, val_evaluator=evaluators))


def test_segments_are_measured(tmp_path):
    evaluation = Evaluation(panoptic_config(tmp_path), 5)
    segments = np.repeat([[1], [2], [0]], (8, 11, 1), axis=0).repeat(30, axis=1)
    found = Found(segments=segments.astype(np.int32), labels=np.array([1, 0]))
    file = SimpleNamespace(
        metadata=dict(classes=["car", "sky"]), predict=lambda image, score_thr: found
    )
    metrics = evaluation(file)
    things, stuff = 100 * 9 / 12, 100 * 8 / 10  # overlaps of rows with those annotated
    assert metrics["coco_panoptic/PQ_th"] == pytest.approx(things)
    assert metrics["coco_panoptic/PQ_st"] == pytest.approx(stuff)
    assert metrics["coco_panoptic/PQ"] == pytest.approx((things + stuff) / 2)
    assert evaluation(file) == metrics  # of a second file


def test_data_that_is_not_there_is_no_error(tmp_path):
    assert _find_evaluation(detection_config(tmp_path), 5) is None
    assert _find_evaluation(Config(dict(default_scope="mmdet")), 5) is None
