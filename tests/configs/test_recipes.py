"""Every config builds, learns and predicts; the recipes say what the official ones say."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, init_default_scope

CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.py"))
SMALL = {
    "model.backbone.embed_dims": 24,
    "model.backbone.depths": (2, 2, 2, 2),
    "model.backbone.init_cfg": None,
}


def load(name: str) -> Config:
    cfg = Config.fromfile(CONFIGS / f"{name}.py")
    init_default_scope(cfg.default_scope)
    return cfg


def narrow(cfg: Config) -> Config:
    """The config with a narrow backbone, and heads to fit."""
    cfg.merge_from_dict(SMALL)
    widths = [24, 48, 96, 192]
    if cfg.default_scope == "mmdet":
        cfg.model.neck.in_channels = widths
    else:
        cfg.model.decode_head.in_channels = widths
        cfg.model.auxiliary_head.in_channels = widths[2]
        for head in (cfg.model.decode_head, cfg.model.auxiliary_head):
            head.channels = 32
            head.norm_cfg = dict(type="BN")  # two processes are no matter of this test
    return cfg


def test_there_are_configs():
    assert {"mask_rcnn_swin_t", "upernet_swin_t"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_model_learns_and_predicts(name):
    """One loss with a backward pass, and one prediction, at a size that windows do not divide."""
    torch.manual_seed(0)
    cfg = narrow(load(name))
    image = torch.randint(0, 256, (3, 97, 141), dtype=torch.uint8)
    if cfg.default_scope == "mmdet":
        data = detection_sample(image)
    else:
        cfg.model.data_preprocessor.size = (97, 141)
        data = segmentation_sample(image)
    model = MODELS.build(cfg.model)
    model.init_weights()
    model.train()
    losses = model(**model.data_preprocessor(data, training=True), mode="loss")
    loss, _ = model.parse_losses(losses)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is not None for p in model.backbone.parameters())
    model.eval()
    with torch.no_grad():
        found, *_ = model(**model.data_preprocessor(data, training=False), mode="predict")
    if cfg.default_scope == "mmdet":
        assert found.pred_instances.masks.shape[1:] == image.shape[1:]
    else:
        assert found.pred_sem_seg.data.shape == (1, *image.shape[1:])


def detection_sample(image: torch.Tensor) -> dict:
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    height, width = image.shape[1:]
    masks = np.zeros((2, height, width), dtype=np.uint8)
    masks[0, 10:40, 20:60], masks[1, 50:90, 70:130] = 1, 1
    sample = DetDataSample(
        metainfo=dict(
            img_shape=(height, width),
            ori_shape=(height, width),
            pad_shape=(height, width),
            scale_factor=(1.0, 1.0),
        )
    )
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[20.0, 10, 60, 40], [70, 50, 130, 90]]),
        labels=torch.tensor([0, 3]),
        masks=BitmapMasks(masks, height, width),
    )
    return pseudo_collate([dict(inputs=image, data_samples=sample)])


def segmentation_sample(image: torch.Tensor) -> dict:
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    height, width = image.shape[1:]
    sample = SegDataSample(
        metainfo=dict(img_shape=(height, width), ori_shape=(height, width), padding_size=(0,) * 4)
    )
    labels = torch.zeros(1, height, width, dtype=torch.long)
    labels[:, 20:60, 30:90] = 2
    sample.gt_sem_seg = PixelData(data=labels)
    # A batch of two: batch norm over one pooled pixel of one image has nothing to average.
    return pseudo_collate([dict(inputs=image, data_samples=sample)] * 2)


@pytest.mark.parametrize(("name", "published"), [("mask_rcnn_swin_t", 48), ("upernet_swin_t", 60)])
def test_parameters_as_published(name, published):
    """In millions, from the tables of the official repositories."""
    model = MODELS.build(load(name).model)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6) == published


@pytest.mark.parametrize(
    ("name", "lr", "decay"), [("mask_rcnn_swin_t", 1e-4, 0.05), ("upernet_swin_t", 6e-5, 0.01)]
)
def test_no_decay_for_norms_and_position_tables(name, lr, decay):
    cfg = load(name)
    cfg.model.backbone.init_cfg = None
    model = MODELS.build(cfg.model)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    names = {id(p): n for n, p in model.named_parameters()}
    assert len(wrapper.optimizer.param_groups) == len(names)
    assert isinstance(wrapper.optimizer, torch.optim.AdamW)
    for group in wrapper.optimizer.param_groups:
        (parameter,) = group["params"]
        free = any(k in names[id(parameter)] for k in ("norm", "relative_position_bias_table"))
        assert group["weight_decay"] == (0 if free else decay), names[id(parameter)]
        assert group["lr"] == lr and group["betas"] == (0.9, 0.999)
    assert cfg.optim_wrapper.get("clip_grad") is None


@pytest.mark.parametrize("name", [n for n in NAMES if "_context" in n])
def test_context_configs_differ_from_their_twins_in_the_context_alone(name):
    mixed, plain = load(name), load(name.replace("_context", ""))
    assert tuple(mixed.model.backbone.pop("context_scales")) == ("window", "global")
    assert mixed.to_dict() == plain.to_dict()


def test_mask_rcnn_is_the_official_1x():
    cfg = load("mask_rcnn_swin_t")
    assert cfg.train_cfg.max_epochs == 12
    warm_up, steps = cfg.param_scheduler
    assert (warm_up.type, warm_up.start_factor, warm_up.end) == ("LinearLR", 0.001, 500)
    assert (steps.type, steps.milestones, steps.gamma) == ("MultiStepLR", [8, 11], 0.1)
    assert cfg.model.backbone.drop_path_rate == 0.1
    assert cfg.optim_wrapper.type == "swin_mm.AmpOptimWrapper"
    whole, cropped = cfg.train_dataloader.dataset.pipeline[3].transforms
    scales = [(side, 1333) for side in (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)]
    assert [tuple(s) for s in whole[0].scales] == scales
    assert [tuple(s) for s in cropped[2].scales] == scales
    assert [tuple(s) for s in cropped[0].scales] == [(400, 1333), (500, 1333), (600, 1333)]
    assert tuple(cropped[1].crop_size) == (384, 600)
    assert (cfg.train_dataloader.batch_size, cfg.auto_scale_lr.base_batch_size) == (2, 16)


def test_upernet_is_the_official_160k():
    cfg = load("upernet_swin_t")
    assert cfg.train_cfg.max_iters == 160_000
    warm_up, decay = cfg.param_scheduler
    assert (warm_up.type, warm_up.start_factor, warm_up.end) == ("LinearLR", 1e-6, 1500)
    assert (decay.type, decay.power, decay.begin, decay.end) == ("PolyLR", 1.0, 1500, 160_000)
    assert cfg.model.backbone.drop_path_rate == 0.3
    assert tuple(cfg.model.data_preprocessor.size) == (512, 512)
    assert (cfg.train_dataloader.batch_size, cfg.auto_scale_lr.base_batch_size) == (2, 16)


@pytest.mark.parametrize("name", [n for n in NAMES if n.endswith("_shapes")])
def test_twins_fit_their_data(name, tmp_path):
    """Head and data agree on the classes, drawn as in the preset `tiny`."""
    cfg = load(name)
    dataset_cfg = cfg.train_dataloader.dataset
    dataset_cfg.data_root = str(tmp_path / "tiny") + "/"
    dataset = DATASETS.build(dataset_cfg)
    classes = len(dataset.metainfo["classes"])
    if cfg.default_scope == "mmdet":
        heads = [cfg.model.roi_head.bbox_head, cfg.model.roi_head.mask_head]
    else:
        heads = [cfg.model.decode_head, cfg.model.auxiliary_head]
    assert [head.num_classes for head in heads] == [classes, classes]
    assert len(dataset) > 0 and dataset[0]["inputs"].shape[0] == 3


def test_stock_mask_rcnn_weights_give_the_same_detections_and_losses():
    """mmdet's own config and our recipe, with the state dict of the first."""
    torch.manual_seed(0)
    ours = narrow(load("mask_rcnn_swin_t"))
    stock = Config.fromfile(ours.filename)
    stock.merge_from_dict(SMALL)
    stock.model.backbone = dict(
        type="SwinTransformer",
        embed_dims=24,
        depths=(2, 2, 2, 2),
        drop_path_rate=0.0,
    )
    stock.model.neck = dict(type="FPN", in_channels=[24, 48, 96, 192], out_channels=256, num_outs=5)
    ours.model.backbone.drop_path_rate = 0.0
    model, reference = MODELS.build(ours.model), MODELS.build(stock.model)
    reference.init_weights()
    for parameter in reference.parameters():  # sure of itself, so that there are detections
        parameter.data.add_(0.01 * torch.randn_like(parameter))
    model.load_state_dict(reference.state_dict(), strict=True)

    image = torch.randint(0, 256, (3, 97, 141), dtype=torch.uint8)
    results = []
    for detector in (reference, model):
        detector.train()
        data = detector.data_preprocessor(detection_sample(image), training=True)
        torch.manual_seed(1)  # of the samplers
        losses = detector(**data, mode="loss")
        detector.eval()
        data = detector.data_preprocessor(detection_sample(image), training=False)
        with torch.no_grad():
            (found,) = detector(**data, mode="predict")
        results.append((losses, found.pred_instances))
    (stock_losses, stock_found), (losses, found) = results
    for key, value in stock_losses.items():
        torch.testing.assert_close(losses[key], value, rtol=1e-4, atol=1e-5)
    assert len(stock_found) > 10
    torch.testing.assert_close(found.bboxes, stock_found.bboxes, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(found.scores, stock_found.scores, rtol=1e-4, atol=1e-5)
    assert torch.equal(found.labels, stock_found.labels)
    assert (found.masks != stock_found.masks).float().mean() < 1e-3
