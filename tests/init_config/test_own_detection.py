"""Configs for own detection data: they load, build, train a step, and say what they should."""

import json

import numpy as np
import pytest
import timm
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from own_data import NAMES, build_loader, train_a_step, write_coco, write_image

from swin_mm.datasets.check import DatasetError
from swin_mm.init_config import InitConfigError, Options, init_detection
from swin_mm.init_config.bands import measure

METHODS = [("mask_rcnn", True), ("mask_rcnn", False), ("cascade", True), ("cascade", False)]
METHODS += [("atss", True), ("retinanet", False), ("reppoints", False), ("reppoints_v2", True)]
METHODS += [("mask_reppoints_v2", True), ("mask_reppoints_v2", False)]


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a config for `train.json`, in a folder that is not the current one."""
    monkeypatch.chdir(tmp_path)

    def write_config(*coco, preset="small", images=(), **options):
        files = [str(tmp_path / name) for name in coco or ("train.json",)]
        out = tmp_path / "configs" / "own.py"
        written = init_detection(files, images, Options(out=out, preset=preset, **options))
        monkeypatch.chdir("/")  # the config must not depend on the folder
        cfg = Config.fromfile(out)
        init_default_scope(cfg.default_scope)
        return written, cfg

    return write_config


def test_small_preset_learns_from_masks(tmp_path, write):
    write_coco(tmp_path, images=10)
    written, cfg = write()
    assert cfg.train_dataloader.dataset.metainfo.classes == NAMES
    assert cfg.image_scale == (160, 96)
    assert "8 training and 2 validation images, 3 classes, boxes and masks" in written.data
    assert {path.name for path in written.files} == {"own.py", "own_train.json", "own_val.json"}
    values, model, _ = train_a_step(cfg)
    assert {"loss_rpn_cls", "loss_cls", "loss_bbox", "loss_mask"} <= values.keys()
    assert model.roi_head.mask_head.num_classes == 3
    assert model.test_cfg.rcnn.score_thr == 0.001
    assert model.train_cfg.rpn_proposal.max_per_img == 60
    assert len(build_loader(cfg.val_dataloader).dataset) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "masks", "annotations"),
    [
        (dict(), True, "swin_mm.LoadAnnotations"),
        (dict(), False, "LoadAnnotations"),
        (dict(preset="full", method="mask_rcnn"), True, "swin_mm.LoadAnnotations"),
        (dict(preset="full", method="retinanet"), False, "LoadAnnotations"),
    ],
    ids=["small", "small, boxes", "full", "full, boxes"],
)
def test_types_are_the_faster_ones_as_in_recipes(tmp_path, write, options, masks, annotations):
    write_coco(tmp_path, images=10, masks=masks)
    _, cfg = write(**options)
    types = [step.type for step in cfg.train_dataloader.dataset.pipeline]
    assert (types[1], types[-1]) == (annotations, "swin_mm.PackDetInputs")
    assert cfg.val_evaluator.type == "swin_mm.CocoMetric"
    assert cfg.model.data_preprocessor.type == "swin_mm.DetDataPreprocessor"
    if cfg.model.type == "MaskRCNN":
        kinds = (cfg.model.neck.type, cfg.model.rpn_head.type, cfg.model.roi_head.type)
        assert kinds == ("swin_mm.FPN", "swin_mm.RPNHead", "swin_mm.StandardRoIHead")
    assert cfg.optim_wrapper.constructor == "swin_mm.MergedOptimWrapperConstructor"
    assert cfg.optim_wrapper.type.startswith("swin_mm.")
    assert cfg.optim_wrapper.optimizer.fused


@pytest.mark.slow
def test_small_preset_learns_from_boxes(tmp_path, write):
    write_coco(tmp_path, images=6, masks=False)
    _, cfg = write()
    assert cfg.model.type == "FasterRCNN" and cfg.val_evaluator.metric == "bbox"
    values, model, _ = train_a_step(cfg)
    assert "loss_mask" not in values and not model.with_mask


def test_twelve_bands_of_sixteen_bits(tmp_path, write):
    write_coco(tmp_path, images=6, suffix=".tif", bands=12)
    _, cfg = write(all_flips=True)
    assert cfg.bands == tuple(range(12))
    _, model, data = train_a_step(cfg)
    assert model.backbone.patch_embed.proj.weight.shape[1] == 12
    assert data["inputs"].shape[1] == 12
    assert abs(data["inputs"].mean()) < 0.3 and 0.5 < data["inputs"].std() < 1.5
    assert cfg.default_hooks.visualization.type == "swin_mm.DetVisualizationHook"


@pytest.mark.parametrize("largest", [200, 1e9], ids=["bytes", "large values, little spread"])
def test_mean_and_deviation_are_those_of_all_pixels(largest):
    random = np.random.default_rng(0)
    images = [largest + random.random((count, 3)) for count in (15, 280, 1)]
    mean, std = measure(images)
    pixels = np.concatenate(images)
    np.testing.assert_allclose(mean, pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(std, pixels.std(0), rtol=1e-6)


def test_bands_can_be_chosen(tmp_path, write):
    write_coco(tmp_path, images=6, suffix=".tif", bands=5)
    _, cfg = write(bands=[4, 1])
    assert cfg.bands == (4, 1) and len(cfg.model.data_preprocessor.mean) == 2
    with pytest.raises(InitConfigError, match="--bands .*: images have bands 0 to 4"):
        write(bands=[5], force=True)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "masks"), METHODS, ids=str)
def test_recipes_build_and_load_a_batch(tmp_path, write, method, masks):
    write_coco(tmp_path, images=6, masks=masks)
    _, cfg = write(preset="full", method=method)
    with torch.device("meta"):
        model = MODELS.build(cfg.model)
    with_masks = masks and method in ("mask_rcnn", "cascade", "mask_reppoints_v2")
    if method == "mask_reppoints_v2":
        assert type(model.bbox_head).__name__ == ("Mask" * masks + "RepPointsV2Head")
    else:
        assert model.with_mask == with_masks
    metric = cfg.val_evaluator.metric
    assert metric == (["bbox", "segm"] if with_masks else "bbox")
    heads = [module for module in model.modules() if getattr(module, "num_classes", None)]
    counts = {head.num_classes for head in heads if "RPN" not in type(head).__name__}
    assert counts == {3}
    batch = next(iter(build_loader(cfg.train_dataloader)))
    assert len(batch["inputs"]) == cfg.batch_size
    assert ("masks" in batch["data_samples"][0].gt_instances) == with_masks


@pytest.mark.slow
def test_full_preset_trains_from_weights_of_timm(tmp_path, write):
    """A whole Swin-T, whose weights are those of a file, takes three steps on one batch."""
    write_coco(tmp_path, images=6)
    _, cfg = write(preset="full", batch=2)
    torch.manual_seed(0)
    weights = timm.create_model("swin_tiny_patch4_window7_224").state_dict()
    torch.save(weights, tmp_path / "swin.pth")
    cfg.model.backbone.init_cfg.checkpoint = str(tmp_path / "swin.pth")
    cfg.model.backbone.drop_path_rate = 0.0  # the same batch gives the same loss
    values, model, data = train_a_step(cfg)
    qkv = "blocks.0.attn.qkv.weight"
    stage = model.backbone.layers[0].state_dict()
    assert torch.equal(stage[qkv], weights[f"layers.0.{qkv}"])
    assert {"loss_rpn_cls", "loss_cls", "loss_bbox", "loss_mask"} <= values.keys()
    optim = build_optim_wrapper(model, cfg.optim_wrapper)
    losses = []
    for _ in range(3):
        torch.manual_seed(0)  # the same samples of regions
        loss, _ = model.parse_losses(model(**data, mode="loss"))
        optim.update_params(loss)
        losses.append(loss.item())
    assert losses[0] > losses[1] > losses[2]
    assert not torch.equal(stage[qkv], weights[f"layers.0.{qkv}"])


def test_published_schedule_is_scaled(tmp_path, write):
    write_coco(tmp_path, images=20)
    _, cfg = write(preset="full", batch=4)
    assert cfg.train_cfg.max_epochs == 300  # of 16 images
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(1e-4 * 4 / 16)
    assert cfg.optim_wrapper.optimizer.weight_decay == 0.05
    assert cfg.param_scheduler[0].end == 120  # a tenth of 300 epochs of 4 steps
    assert cfg.param_scheduler[1].milestones == [200, 275]
    assert cfg.auto_scale_lr.base_batch_size == 4
    assert cfg.model.backbone.init_cfg.checkpoint.startswith("https://")
    assert cfg.default_hooks.checkpoint.save_best == "coco/segm_mAP"


def test_validation_data_of_its_own(tmp_path, write):
    write_coco(tmp_path, images=5)
    categories = ((1, NAMES[2]), (2, NAMES[1]), (3, NAMES[0]))
    write_coco(tmp_path, images=3, categories=categories, file="val.json", image_folder="val")
    written, cfg = write("train.json", "val.json")
    assert any("order of the training file" in note for note in written.notes)
    assert cfg.train_file == "train.json"  # below data_root
    assert cfg.val_evaluator.ann_file.endswith("own_val.json")
    copied = json.loads((tmp_path / "configs" / "own_val.json").read_text())
    assert [category["name"] for category in copied["categories"]] == list(NAMES)


def test_one_class_and_many_objects(tmp_path, write):
    coco = write_coco(tmp_path, images=3, categories=((7, "nucleus"),))
    first = coco["annotations"][0]
    coco["annotations"] += [{**first, "id": 100 + index} for index in range(140)]
    (tmp_path / "train.json").write_text(json.dumps(coco))
    _, cfg = write()
    assert cfg.classes == ("nucleus",)
    assert cfg.model.test_cfg.rcnn.max_per_img == 200
    assert cfg.model.train_cfg.rpn_proposal.max_per_img == 500  # crowded: more regions


@pytest.mark.parametrize(("objects", "regions"), [(12, 60), (13, 500)])
def test_crowded_images_have_more_regions(tmp_path, write, objects, regions):
    coco = write_coco(tmp_path, images=3, categories=((7, "nucleus"),))
    first = coco["annotations"][0]
    coco["annotations"] += [{**first, "id": 100 + index} for index in range(objects - 1)]
    (tmp_path / "train.json").write_text(json.dumps(coco))
    _, cfg = write("train.json", "train.json")
    assert cfg.model.train_cfg.rpn_proposal.max_per_img == regions


def test_small_objects_are_enlarged(tmp_path, write):
    """Squares of 20 pixels in images of 96 x 64, then strips of them."""
    coco = write_coco(tmp_path, images=20)
    _, cfg = write()
    assert cfg.image_scale == (160, 96)  # 34 / 20 times, to multiples of 32
    assert cfg.batch_size == 2
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(1.5e-3 / 2**0.5)
    for annotation in coco["annotations"]:
        annotation["bbox"][::2] = 4, 80
    (tmp_path / "train.json").write_text(json.dumps(coco))
    _, cfg = write(force=True)
    assert cfg.image_scale == (96, 64)  # a strip of 80 x 20 is as large as a square of 40
    assert cfg.batch_size == 4


def test_what_is_odd_is_noted(tmp_path, write):
    coco = write_coco(tmp_path, images=10, size=(640, 960))
    coco["categories"].append(dict(id=99, name="never"))
    coco["annotations"] = [a for a in coco["annotations"] if a["image_id"] != 1]
    for annotation in coco["annotations"]:
        annotation.update(bbox=[4, 8, 6, 6], area=36, segmentation=[[4, 8, 10, 8, 10, 14]])
    (tmp_path / "train.json").write_text(json.dumps(coco))
    notes = "\n".join(write()[0].notes)
    assert "no training object of class 'never'" in notes
    assert "half of the objects are below 8 pixels" in notes


def test_names_are_matched_and_classes_merged(tmp_path, write):
    """In a copy; the user's file stays as it is."""
    categories = ((3, "cat"), (7, "dog"), (9, "cat"))
    coco = write_coco(tmp_path, images=6, categories=categories)
    for image in coco["images"]:
        image["file_name"] = "D:\\photos\\" + image["file_name"].upper()
    text = json.dumps(coco)
    (tmp_path / "train.json").write_text(text)
    written, cfg = write()
    assert cfg.train_dataloader.dataset.metainfo.classes == ("cat", "dog")
    assert "6 names of images were replaced by those of files" in "\n".join(written.notes)
    parts = [json.loads(path.read_text()) for path in written.files if path.suffix == ".json"]
    names = [image["file_name"] for part in parts for image in part["images"]]
    assert sorted(names) == [f"{i:03d}.png" for i in range(6)]
    used = sorted(a["category_id"] for part in parts for a in part["annotations"])
    assert used == [3] * 12 + [7] * 6
    assert (tmp_path / "train.json").read_text() == text
    train_a_step(cfg)


def test_some_names_that_differ_are_told(tmp_path, write):
    write_coco(tmp_path, images=6)
    (tmp_path / "train" / "003.png").rename(tmp_path / "train" / "003.PNG")
    written, cfg = write()
    assert "1 names of images were replaced by those of files, such as 003.PNG for 003.png" in (
        "\n".join(written.notes)
    )
    (tmp_path / "train" / "003.PNG").unlink()
    with pytest.raises(DatasetError, match="1 of 6 names match no file in .*train: 003.png; put"):
        write(force=True)


@pytest.mark.parametrize("name", ["pets", "_background_"])
@pytest.mark.parametrize("files", [("train.json",), ("train.json", "val.json")])
def test_placeholders_are_no_classes(tmp_path, write, files, name):
    coco = write_coco(tmp_path, images=6, categories=((1, "cat"), (2, "dog")))
    group = dict(id=0, name=name, supercategory="none")
    coco["categories"] = [group, *(c | dict(supercategory="pets") for c in coco["categories"])]
    for file in files:
        (tmp_path / file).write_text(json.dumps(coco))
    written, cfg = write(*files, images=[str(tmp_path / "train")])
    assert cfg.train_dataloader.dataset.metainfo.classes == ("cat", "dog")
    assert any(f"{name!r} is no class" in note for note in written.notes)
    assert not any("no training object" in note for note in written.notes)
    sample = build_loader(cfg.train_dataloader).dataset[0]["data_samples"]
    assert sorted(sample.gt_instances.labels.tolist()) == [0, 1]


def test_nothing_is_replaced_unasked_and_nothing_is_left_of_a_failure(tmp_path, write):
    coco = write_coco(tmp_path, images=6)
    write()
    before = (tmp_path / "configs" / "own.py").read_bytes()
    with pytest.raises(InitConfigError, match="own.py exists already: --force replaces it"):
        write()
    write(force=True)
    assert (tmp_path / "configs" / "own.py").read_bytes() == before
    (tmp_path / "train" / "003.png").unlink()
    with pytest.raises(DatasetError, match="1 of . names match no file in .*003.png"):
        write(force=True)
    assert (tmp_path / "configs" / "own.py").read_bytes() == before
    for path in (tmp_path / "configs").iterdir():
        path.unlink()
    with pytest.raises(DatasetError):
        write()
    assert not list((tmp_path / "configs").iterdir())
    assert coco["images"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(method="yolo"), "--method yolo: own data is written for mask_rcnn"),
        (dict(method="atss"), "no small model of atss"),
        (dict(preset="full", backbone="gigantic"), "no recipe mask_rcnn_swin_gigantic: .*swin_t"),
    ],
    ids=["method", "small method", "backbone"],
)
def test_what_there_is_no_recipe_for(tmp_path, write, options, message):
    write_coco(tmp_path, images=6)
    with pytest.raises(InitConfigError, match=message):
        write(**options)


def test_bands_of_constant_value_and_of_different_number_are_refused(tmp_path, write):
    write_coco(tmp_path, images=4, suffix=".tif", bands=4)
    for index in range(4):
        picture = np.zeros((64, 96, 4), dtype=np.uint8)
        picture[..., :3] = np.arange(96)[:, None]
        write_image(tmp_path / "train" / f"{index:03d}.tif", picture)
    with pytest.raises(InitConfigError, match=r"bands \[3\] hold one value .*--bands 0 1 2"):
        write()
    write_image(tmp_path / "train" / "001.tif", picture[..., :2])
    with pytest.raises(InitConfigError, match="different bands: .* 4, .* 2; choose"):
        write()
