"""Detection recipes differ from mmdet's published ones only as a list says, with reasons."""

import copy
from pathlib import Path

import mmdet
import pytest
import torch
from config_diff import assert_differs_only_as_meant, state_defaults
from mmdet.models.backbones import SwinTransformer as StockSwinTransformer
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from recipe_tools import detection_data, load, narrow

from swin_mm import SwinTransformer
from swin_mm.models.backbones.arguments import Arch, resolve_arch

STOCK = Path(mmdet.__file__).parent / ".mim" / "configs"
RUNNER_KEYS = {
    *("model", "train_dataloader", "val_dataloader", "test_dataloader"),
    *("val_evaluator", "test_evaluator", "train_cfg", "val_cfg", "test_cfg"),
    *("optim_wrapper", "param_scheduler", "auto_scale_lr", "default_hooks", "custom_hooks"),
    *("env_cfg", "visualizer", "log_processor", "log_level", "load_from", "resume"),
    *("default_scope", "tta_model", "tta_pipeline"),
}
SCOPE = ("*_scope_", "mmengine's note of the package that a part comes from")
ALL = [
    SCOPE,
    ("model.backbone.type", "ours"),
    (
        "default_hooks.checkpoint.*",
        "survives being killed, and damage to the newest; keeps the best",
    ),
    ("default_hooks.checkpoint.save_best", "the best is kept beside the newest"),
    ("default_hooks.start_table.*", "says what is about to run"),
    ("default_hooks.progress.*", "shows how far it is"),
    ("default_hooks.curves.*", "draws loss and metrics"),
    ("default_hooks.runtime_info.*", "leaves losses on the GPU until they are logged"),
    ("default_hooks.non_finite.*", "stops before NaN reaches the weights"),
    ("default_hooks.resumed_schedules.*", "goes on with schedules of mmengine's groups"),
    ("train_cfg.type", "ours, which resumes exactly where it was"),
    ("*_evaluator.*", "ours, with mmdet's figures"),
    ("optim_wrapper.type", "ours, which leaves the gradients' norm on the GPU"),
    ("optim_wrapper.constructor", "merges groups with equal settings"),
    ("optim_wrapper.optimizer.fused", "one kernel for all weights of a group, the same rule"),
]
FEEDING = [
    ("model.data_preprocessor.type", "ours, for the whole batch at once"),
    (
        "train_dataloader.dataset.pipeline.*.type",
        "ours: masks stay polygons, images are not copied",
    ),
]
OUR_FPN = ("model.neck.type", "ours, with mmdet's arguments")
OUR_RPN_HEAD = ("model.rpn_head.type", "ours: all images at once, the same numbers")
OUR_ROI_HEAD = ("model.roi_head.type", "ours: all images at once, the same numbers")
OFFICIAL = "as in the official repository"
WARM_UP = ("param_scheduler.0.end", f"500 steps, {OFFICIAL}")
PRECISION = ("optim_wrapper.type", f"mixed precision, {OFFICIAL}; exact where numbers need it")
V2_KEYS = [
    (f"optim_wrapper.paramwise_cfg.custom_keys.{key}.decay_mult", "of V2, which V1 does not have")
    for key in ("logit_scale", "cpb_mlp")
]
STAGE_NAMES = [
    (f"optim_wrapper.paramwise_cfg.custom_keys.backbone.{part}.*", "parameters' names in ours")
    for part in ("layers", "stages")
]
SWIN = "swin/mask-rcnn_swin-"
MASK2FORMER = "mask2former/mask2former_swin-"
# Ours, mmdet's, and the list of differences beside `ALL`.
PAIRS = {
    "mask_rcnn_swin_t": (
        f"{SWIN}t-p4-w7_fpn_1x_coco",
        [
            OUR_FPN,
            *FEEDING,
            OUR_RPN_HEAD,
            OUR_ROI_HEAD,
            WARM_UP,
            PRECISION,
            *V2_KEYS,
            ("model.backbone.drop_path_rate", f"0.1 for 12 epochs, {OFFICIAL}"),
            ("train_dataloader.dataset.pipeline.[234].*", f"multi-scale with crops, {OFFICIAL}"),
        ],
    ),
    "mask_rcnn_swin_t_3x": (
        f"{SWIN}t-p4-w7_fpn_amp-ms-crop-3x_coco",
        [OUR_FPN, *FEEDING, OUR_RPN_HEAD, OUR_ROI_HEAD, WARM_UP, PRECISION, *V2_KEYS],
    ),
    "mask_rcnn_swin_s_3x": (
        f"{SWIN}s-p4-w7_fpn_amp-ms-crop-3x_coco",
        [OUR_FPN, *FEEDING, OUR_RPN_HEAD, OUR_ROI_HEAD, WARM_UP, PRECISION, *V2_KEYS],
    ),
    "retinanet_swin_t": (
        "swin/retinanet_swin-t-p4-w7_fpn_1x_coco",
        [
            OUR_FPN,
            *FEEDING,
            PRECISION,
            *V2_KEYS,
            ("optim_wrapper.optimizer.*", "AdamW at 1e-4 as in the official repository, not SGD"),
            ("optim_wrapper.paramwise_cfg.custom_keys.*.decay_mult", OFFICIAL),
            ("train_dataloader.dataset.pipeline.[234].*", f"multi-scale with crops, {OFFICIAL}"),
        ],
    ),
    "dino_swin_l": ("dino/dino-5scale_swin-l_8xb2-12e_coco", []),
    "dino_swin_l_3x": ("dino/dino-5scale_swin-l_8xb2-36e_coco", []),
    "atss_dyhead_swin_l_2x": (
        "dyhead/atss_swin-l-p4-w12_fpn_dyhead_ms-2x_coco",
        [("model.neck.0.type", "ours, with mmdet's arguments")],
    ),
    "rtmdet_swin_b": ("rtmdet/rtmdet_l_swin_b_4xb32-100e_coco", []),
    **{
        name: (f"{MASK2FORMER}{stock}", STAGE_NAMES)
        for name, stock in {
            "mask2former_swin_t": "t-p4-w7-224_8xb2-lsj-50e_coco",
            "mask2former_swin_s": "s-p4-w7-224_8xb2-lsj-50e_coco",
            "mask2former_swin_t_panoptic": "t-p4-w7-224_8xb2-lsj-50e_coco-panoptic",
            "mask2former_swin_s_panoptic": "s-p4-w7-224_8xb2-lsj-50e_coco-panoptic",
            "mask2former_swin_b_panoptic": "b-p4-w12-384_8xb2-lsj-50e_coco-panoptic",
            "mask2former_swin_b_22k_panoptic": "b-p4-w12-384-in21k_8xb2-lsj-50e_coco-panoptic",
            "mask2former_swin_l_panoptic": "l-p4-w12-384-in21k_16xb1-lsj-100e_coco-panoptic",
        }.items()
    },
}


def comparable(cfg: Config) -> dict:
    """What the runner reads of a config, the backbone with all arguments of mmdet's."""
    parts = {key: value for key, value in cfg.to_dict().items() if key in RUNNER_KEYS}
    backbone = parts["model"]["backbone"]
    if backbone["type"] != "SwinTransformer":
        variant = resolve_arch(
            backbone.pop("arch", None), *(backbone.pop(key, None) for key in Arch._fields)
        )
        backbone |= variant._asdict()
    backbone = state_defaults(backbone, StockSwinTransformer)
    del backbone["convert_weights"]  # ours recognises any layout by itself
    parts["model"]["backbone"] = backbone
    return parts


def test_defaults_of_the_backbone_are_mmdets():
    """Or else `comparable` would fill in what is not so."""
    theirs = state_defaults({}, StockSwinTransformer)
    ours = {key: state_defaults({}, SwinTransformer)[key] for key in theirs}
    ours |= resolve_arch(None, None, None, None)._asdict()
    meant = [("act_cfg*", "None stands for GELU"), ("norm_cfg*", "None stands for layer norm")]
    assert_differs_only_as_meant(ours, theirs, meant)


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIRS)
def test_differs_from_mmdets_recipe_only_as_meant(name):
    stock, meant = PAIRS[name]
    theirs = Config.fromfile(STOCK / f"{stock}.py")
    assert_differs_only_as_meant(comparable(load(name)), comparable(theirs), [*ALL, *meant])


def our_name(name: str) -> str:
    """Name in our model of a parameter of mmdet's."""
    for theirs, ours in (
        ("backbone.stages.", "backbone.layers."),
        ("patch_embed.projection", "patch_embed.proj"),
        (".attn.w_msa.", ".attn."),
        (".ffn.layers.0.0.", ".mlp.fc1."),
        (".ffn.layers.1.", ".mlp.fc2."),
    ):
        name = name.replace(theirs, ours) if name.startswith("backbone.") else name
    return name


def optimizer_settings(cfg: Config) -> dict[str, tuple]:
    """Rate and decay of each parameter by name, and the class and clipping of all.

    The backbone has all its blocks, but few channels: mmdet's cannot be built without memory.
    """
    backbone = cfg.model.backbone
    depths = resolve_arch(backbone.get("arch"), None, backbone.get("depths"), None).depths
    narrow(cfg.model)
    backbone.depths = depths
    model = MODELS.build(cfg.model)
    wrapper = build_optim_wrapper(model, {**cfg.optim_wrapper, "type": "OptimWrapper"})
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    settings = {
        our_name(names[id(parameter)]): (group["lr"], group["weight_decay"])
        for group in wrapper.optimizer.param_groups
        for parameter in group["params"]
    }
    assert len(settings) == len(names)
    return settings | {"": (type(wrapper.optimizer), str(wrapper.clip_grad_kwargs))}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "mask_rcnn_swin_t_3x",
        "dino_swin_l",
        "atss_dyhead_swin_l_2x",
        "rtmdet_swin_b",
        "mask2former_swin_l_panoptic",
    ],
)
def test_every_parameter_has_the_rate_and_decay_of_mmdets(name):
    stock, _ = PAIRS[name]
    settings = optimizer_settings(load(name))
    assert settings == optimizer_settings(Config.fromfile(STOCK / f"{stock}.py"))
    assert len(set(settings.values())) > 2


def test_v2_spares_its_position_network_and_temperatures():
    settings = optimizer_settings(load("mask_rcnn_swin_v2_t"))
    settings.pop("")
    spared = ("norm", "logit_scale", "cpb_mlp")
    for name, (lr, decay) in settings.items():
        assert lr == 1e-4
        assert decay == (0 if any(key in name for key in spared) else 0.05), name
    assert all(any(key in name for name in settings) for key in spared)


MODEL_PARTS = {
    "atss_swin_t_3x": "atss/atss_r50_fpn_1x_coco",
    "reppoints_swin_t_3x": "reppoints/reppoints-moment_r50_fpn-gn_head-gn_1x_coco",
    "sparse_rcnn_swin_t_3x": (
        "sparse_rcnn/sparse-rcnn_r50_fpn_300-proposals_crop-ms-480-800-3x_coco"
    ),
    "htc_swin_b_6x": "htc/htc_r50_fpn_1x_coco",
    "dino_swin_t": "dino/dino-4scale_r50_8xb2-12e_coco",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODEL_PARTS)
def test_heads_are_mmdets(name):
    """All of the model but backbone and neck, for methods that mmdet has on a ResNet."""
    ours = load(name).model.to_dict()
    theirs = Config.fromfile(STOCK / f"{MODEL_PARTS[name]}.py").model.to_dict()
    meant = [SCOPE, ("backbone.*", "Swin"), ("neck.in_channels.*", "Swin's widths")]
    if "dino" not in name:
        meant.append(("neck.type", "ours"))
        meant.append(("data_preprocessor.type", "ours, for the whole batch at once"))
    if "start_level" in ours["neck"] and "sparse" not in name:
        meant.append(("neck.start_level", "the finest map, unused, is not computed"))
    if "htc" in name:
        meant += [("test_cfg.rcnn.nms.*", "soft NMS, as in HTC++")]
        meant += [
            (f"{head}_head.type", "ours: all images at once, the same numbers")
            for head in ("rpn", "roi")
        ]
    assert_differs_only_as_meant(ours, theirs, meant)


@pytest.mark.slow
def test_stock_mask_rcnn_weights_give_the_same_detections_and_losses():
    """mmdet's own config and our recipe, with the state dict of the first."""
    torch.manual_seed(0)
    ours = load("mask_rcnn_swin_t")
    narrow(ours.model)
    ours.model.backbone.update(drop_path_rate=0.0, init_cfg=None)
    stock = copy.deepcopy(ours)
    widths = ours.model.neck.in_channels
    size = {key: ours.model.backbone[key] for key in Arch._fields}
    stock.model.backbone = dict(type="SwinTransformer", drop_path_rate=0.0, **size)
    stock.model.neck = dict(type="FPN", in_channels=widths, out_channels=256, num_outs=5)
    model, reference = MODELS.build(ours.model), MODELS.build(stock.model)
    reference.init_weights()
    for parameter in reference.parameters():  # sure of itself, so that there are detections
        parameter.data.add_(0.01 * torch.randn_like(parameter))
    model.load_state_dict(reference.state_dict(), strict=True)

    batch = detection_data()
    results = []
    for detector in (reference, model):
        detector.train()
        data = detector.data_preprocessor(copy.deepcopy(batch), training=True)
        torch.manual_seed(1)  # of the samplers
        losses = detector(**data, mode="loss")
        detector.eval()
        data = detector.data_preprocessor(copy.deepcopy(batch), training=False)
        with torch.no_grad():
            (found, _) = detector(**data, mode="predict")
        results.append((losses, found.pred_instances))
    (stock_losses, stock_found), (losses, found) = results
    for key, value in stock_losses.items():  # rounding may swap one of a thousand proposals
        torch.testing.assert_close(losses[key], value, rtol=1e-3, atol=1e-5)
    assert len(stock_found) > 10
    torch.testing.assert_close(found.bboxes, stock_found.bboxes, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(found.scores, stock_found.scores, rtol=1e-4, atol=1e-5)
    assert torch.equal(found.labels, stock_found.labels)
    assert (found.masks != stock_found.masks).float().mean() < 1e-3
