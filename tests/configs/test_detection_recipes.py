"""Detection recipes: every family learns and predicts, in the published size and by the book."""

import pytest
from mmengine.registry import DATASETS
from mmengine.runner import set_random_seed
from recipe_tools import NAMES, SIDES, learn_and_predict, load, read_docstring

from swin_mm.models.backbones.arguments import resolve_arch

NAMES = [name for name in NAMES if ", COCO," in read_docstring(name)]
# One of each kind of model; sizes differ in numbers alone.
KINDS = (
    "mask_rcnn_swin_t",
    "mask_rcnn_swin_v2_t",
    "cascade_mask_rcnn_swin_t",
    "retinanet_swin_t",
    "atss_swin_t_3x",
    "atss_dyhead_swin_l_2x",
    "reppoints_swin_t_3x",
    "reppoints_v2_swin_t_3x",
    "mask_reppoints_v2_swin_t_3x",
    "sparse_rcnn_swin_t_3x",
    "htc_swin_b_6x",
    "dino_swin_t",
    "dino_swin_l",
    "mask2former_swin_t",
    "mask2former_swin_t_panoptic",
    "rtmdet_swin_b",
)
# The one-stage, two-stage and mask-classifying kind.
FIRST_TIER = ("mask_rcnn_swin_t", "retinanet_swin_t", "mask2former_swin_t_panoptic")
# Millions, as published: by the official repository, by table 2(a) of the paper on Swin, and by
# the tables of the paper on Mask2Former (https://arxiv.org/abs/2112.01527).
PARAMETERS = {
    "mask_rcnn_swin_t": 48,
    "mask_rcnn_swin_t_3x": 48,
    "mask_rcnn_swin_s_3x": 69,
    "cascade_mask_rcnn_swin_t": 86,
    "cascade_mask_rcnn_swin_t_3x": 86,
    "cascade_mask_rcnn_swin_s_3x": 107,
    "cascade_mask_rcnn_swin_b_3x": 145,
    "atss_swin_t_3x": 36,
    "sparse_rcnn_swin_t_3x": 110,
    "reppoints_v2_swin_t_3x": 45,
    "mask_reppoints_v2_swin_t_3x": 47,
    "mask2former_swin_t": 47,
    "mask2former_swin_t_panoptic": 47,
    "mask2former_swin_s": 69,
    "mask2former_swin_s_panoptic": 69,
    "mask2former_swin_b": 107,
    "mask2former_swin_b_panoptic": 107,
    "mask2former_swin_l": 216,
    "mask2former_swin_l_panoptic": 216,
}


def test_a_model_of_every_family_is_trained_here():
    assert {n.split("_swin")[0] for n in NAMES} == {n.split("_swin")[0] for n in KINDS}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in FIRST_TIER else pytest.mark.slow) for n in KINDS]
)
def test_model_learns_and_predicts(name):
    cfg = load(name)
    results = learn_and_predict(cfg)
    assert len(results) == 2
    found = results[0]
    if "panoptic" in name:
        assert found.pred_panoptic_seg.sem_seg.shape == (1, *SIDES)
        return
    assert len(found.pred_instances.scores) == len(found.pred_instances.bboxes)
    metrics = cfg.val_evaluator.metric
    assert ("masks" in found.pred_instances) == ("segm" in metrics)
    if "masks" in found.pred_instances:
        assert found.pred_instances.masks.shape[1:] == SIDES


@pytest.mark.parametrize(("name", "published"), PARAMETERS.items())
def test_quotes_the_published_parameters(name, published):
    """`test_recipes` compares what is quoted with the model."""
    assert f", {published}M parameters" in read_docstring(name)


def test_cascade_has_the_official_box_heads():
    heads = load("cascade_mask_rcnn_swin_t").model.roi_head.bbox_head
    stds = [(0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067)]
    assert [tuple(head.bbox_coder.target_stds) for head in heads] == stds
    for head in heads:
        assert head.type == "ConvFCBBoxHead"
        assert (head.num_shared_convs, head.num_shared_fcs) == (4, 1)
        assert (head.conv_out_channels, head.fc_out_channels) == (256, 1024)
        assert not head.reg_class_agnostic and head.reg_decoded_bbox
        assert head.norm_cfg.type == "SyncBN"
        assert (head.loss_bbox.type, head.loss_bbox.loss_weight) == ("GIoULoss", 10.0)


@pytest.mark.parametrize(
    ("name", "epochs", "milestones", "drop_path_rate"),
    [
        ("mask_rcnn_swin_t", 12, [8, 11], 0.1),
        ("mask_rcnn_swin_t_3x", 36, [27, 33], 0.2),
        ("mask_rcnn_swin_s_3x", 36, [27, 33], 0.2),
        ("cascade_mask_rcnn_swin_t", 12, [8, 11], 0.0),
        ("cascade_mask_rcnn_swin_t_3x", 36, [27, 33], 0.2),
        ("cascade_mask_rcnn_swin_s_3x", 36, [27, 33], 0.2),
        ("cascade_mask_rcnn_swin_b_3x", 36, [27, 33], 0.3),
        ("atss_swin_t_3x", 36, [27, 33], 0.2),
        ("sparse_rcnn_swin_t_3x", 36, [27, 33], 0.2),
        ("reppoints_swin_t_3x", 36, [27, 33], 0.2),
        ("reppoints_v2_swin_t_3x", 36, [27, 33], 0.2),
        ("mask_reppoints_v2_swin_t_3x", 36, [27, 33], 0.2),
        ("retinanet_swin_t", 12, [8, 11], 0.2),
        ("htc_swin_b_6x", 72, [63, 69], 0.3),
        ("htc_swin_l_6x", 72, [63, 69], 0.3),
    ],
)
def test_schedule_is_the_official_one(name, epochs, milestones, drop_path_rate):
    cfg = load(name)
    warm_up, steps = cfg.param_scheduler
    assert (warm_up.type, warm_up.start_factor, warm_up.end) == ("LinearLR", 0.001, 500)
    assert (steps.type, steps.milestones, steps.gamma) == ("MultiStepLR", milestones, 0.1)
    assert steps.end == cfg.train_cfg.max_epochs == epochs
    assert cfg.model.backbone.drop_path_rate == drop_path_rate
    assert (cfg.train_dataloader.batch_size, cfg.auto_scale_lr.base_batch_size) == (2, 16)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ("AdamW", 1e-4, 0.05)
    if "reppoints_v2" in name:
        resize = cfg.train_dataloader.dataset.pipeline[2]
        if "mask" in name:
            assert [tuple(scale) for scale in resize.scale] == [(1333, 480), (1333, 960)]
        else:
            assert resize.scales == [(side, 1333) for side in range(480, 961, 32)]
    elif "htc" not in name:
        whole, cropped = cfg.train_dataloader.dataset.pipeline[3].transforms
        assert [side for side, _ in whole[0].scales] == list(range(480, 801, 32))
        assert tuple(cropped[1].crop_size) == (384, 600)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_weights_fit_the_backbone(name):
    """Size, version and window in the name of the file agree with the arguments."""
    backbone = load(name).model.backbone
    file = backbone.init_cfg.checkpoint.rsplit("/", 1)[1]
    arch = resolve_arch(
        backbone.get("arch"), *(backbone.get(k) for k in ("embed_dims", "depths", "num_heads"))
    )
    sizes = {"tiny": (96, 6), "small": (96, 18), "base": (128, 18), "large": (192, 18)}
    assert (arch.embed_dims, arch.depths[2]) == sizes[file.split("_")[1]]
    assert file.startswith("swinv2_") == (backbone.type == "swin_mm.SwinTransformerV2")
    assert f"_window{backbone.get('window_size', 7)}_" in file
    has_22k = "_22k" in name or name.startswith(("htc", "rtmdet")) or arch.embed_dims == 192
    assert file.endswith("_22k.pth") == has_22k


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "mask_rcnn_swin_t_3x",
        "atss_swin_t_3x",
        "atss_dyhead_swin_l_2x",
        "reppoints_v2_swin_t_3x",
        "mask_reppoints_v2_swin_t_3x",
        "htc_swin_b_6x",
        "dino_swin_t",
        "mask2former_swin_t",
        "rtmdet_swin_b",
    ],
)
def test_pipelines_bring_what_the_heads_ask_for(name, tiny_shapes):
    """On the built-in data in place of COCO: boxes, and masks or a label map where they train."""
    set_random_seed(0)
    cfg = load(name)
    for split in ("train", "val"):
        loader = cfg[f"{split}_dataloader"]
        dataset = loader.dataset
        while "dataset" in dataset:
            dataset = dataset.dataset
        dataset.update(
            type="swin_mm.ShapesInstanceDataset",
            data_root=f"{tiny_shapes}/",
            ann_file=f"annotations/instances_{split}.json",
            data_prefix=dict(img=f"{split}/", seg=f"semantic/{split}/"),
        )
        item = DATASETS.build(loader.dataset)[0]
        sides = item["inputs"].shape[1:]
        truth = item["data_samples"].gt_instances
        assert len(truth.bboxes) == len(truth.labels)
        assert split == "train" or len(truth.labels) > 0  # a random crop may hold nothing
        has_masks = name.startswith(("mask", "htc"))
        assert ("masks" in truth) == has_masks
        if has_masks and split == "train":
            assert (truth.masks.height, truth.masks.width) == sides
        if name.startswith("htc") and split == "train":
            assert item["data_samples"].gt_sem_seg.sem_seg.shape[-2:] == sides
