"""The segmentation recipes against mmseg's published ones and the official figures."""

import inspect
import re
from pathlib import Path

import mmseg
import pytest
import torch
from config_diff import assert_differs_only_as_meant, state_defaults
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from mmseg.registry import DATASETS
from recipe_tools import NAMES, SIDES, build_on_meta, learn_and_predict, load

from swin_mm import SwinTransformer
from swin_mm.models.backbones.arguments import ARCHS

NAMES = [n for n in NAMES if n.startswith(("upernet", "knet")) or n.endswith("_ade20k")]
MMSEG = Path(mmseg.__file__).parent / ".mim/configs"
UPERNET = "swin/swin-{}-pre_upernet_8xb2-160k_ade20k-512x512"
TWINS = {
    "upernet_swin_t": UPERNET.format("tiny-patch4-window7-in1k"),
    "upernet_swin_s": UPERNET.format("small-patch4-window7-in1k"),
    "upernet_swin_b": UPERNET.format("base-patch4-window7-in1k"),
    "upernet_swin_b_22k": UPERNET.format("base-patch4-window7-in22k"),
    "upernet_swin_b_384": UPERNET.format("base-patch4-window12-in1k-384x384"),
    "upernet_swin_b_22k_384": UPERNET.format("base-patch4-window12-in22k-384x384"),
    "upernet_swin_l_22k": UPERNET.format("large-patch4-window7-in22k"),
    "upernet_swin_l_22k_384": UPERNET.format("large-patch4-window12-in22k-384x384"),
    "mask2former_swin_t_ade20k": "mask2former/mask2former_swin-t_8xb2-160k_ade20k-512x512",
    "mask2former_swin_s_ade20k": "mask2former/mask2former_swin-s_8xb2-160k_ade20k-512x512",
    "mask2former_swin_b_ade20k": (
        "mask2former/mask2former_swin-b-in1k-384x384-pre_8xb2-160k_ade20k-640x640"
    ),
    "mask2former_swin_b_22k_ade20k": (
        "mask2former/mask2former_swin-b-in22k-384x384-pre_8xb2-160k_ade20k-640x640"
    ),
    "mask2former_swin_l_22k_ade20k": (
        "mask2former/mask2former_swin-l-in22k-384x384-pre_8xb2-160k_ade20k-640x640"
    ),
    "knet_swin_t": "knet/knet-s3_swin-t_upernet_8xb2-adamw-80k_ade20k-512x512",
    "knet_swin_l_22k": "knet/knet-s3_swin-l_upernet_8xb2-adamw-80k_ade20k-512x512",
}
# Why a recipe differs from its twin: keys of the resolved configs, and the reason.
EVERYWHERE = (
    ("*_scope_", "mmengine's note of the package that a part comes from"),
    ("data_preprocessor.*", "mmseg's have it apart too; the model's own is the one in use"),
    ("model.backbone.type", "the backbone of this project"),
    ("model.backbone.init_cfg.*", "Microsoft's files; mmseg's hold the same under other names"),
    ("model.type", "ours, which takes windows of an image in batches"),
    ("model.data_preprocessor.type", "ours, which prepares the whole batch at once"),
    ("train_dataloader.dataset.pipeline.*.type", "ours, which hands images over as they are"),
    ("tta_pipeline.0.backend_args", "None unless given"),
    ("tta_pipeline.1.transforms.0.*", "ratios of the test size, as published; not of the image's"),
    ("default_hooks.*", "what is shown and kept on the way, not what is learnt"),
    ("log_processor.*", "as above"),
    ("train_cfg.type", "ours, which resumes exactly where it was"),
    ("optim_wrapper.type", "ours, which leaves the gradients' norm on the GPU"),
    ("optim_wrapper.constructor", "merges groups with equal settings; compared below"),
    ("optim_wrapper.optimizer.fused", "one kernel for all weights of a group, the same rule"),
)
UPERNET_ONLY = (
    ("auto_scale_lr.*", "mmseg's have no batch size to scale from: 8 GPUs with 2 images each"),
    ("model.backbone.act_cfg*", "GELU is what None stands for"),
    ("model.backbone.norm_cfg*", "layer norm is what None stands for"),
    ("model.decode_head.type", "ours, which keeps no logits of all pixels"),
    ("model.auxiliary_head.type", "as above"),
)
MASK2FORMER_ONLY = (
    ("optim_wrapper.paramwise_cfg.custom_keys.*", "names of layers; the effect is compared below"),
)
KNET_ONLY = (
    ("auto_scale_lr.*", "mmseg's have no batch size to scale from: 8 GPUs with 2 images each"),
    ("model.decode_head.kernel_generate_head.type", "ours, which keeps no logits of all pixels"),
    ("model.auxiliary_head.type", "as above"),
    ("model.pretrained", "the older way to say init_cfg"),
    ("model.backbone.init_cfg", "as above"),
)
IMAGE_SIZE = (
    (
        "model.backbone.pretrain_img_size",
        "of absolute position embeddings, of which there are none",
    ),
)
UNPADDED = (
    (
        "model.data_preprocessor.test_cfg",
        "the model at 512 pixels pads; None says not to, as theirs",
    ),
)
# Millions, from the tables of Microsoft's repository and of Mask2Former's paper.
PARAMETERS = {
    "upernet_swin_t": 60,
    "upernet_swin_s": 81,
    "upernet_swin_b": 121,
    "upernet_swin_b_22k_640": 121,
    "upernet_swin_l_22k_640": 234,
    "mask2former_swin_t_ade20k": 47,
    "mask2former_swin_s_ade20k": 69,
    "mask2former_swin_b_ade20k": 107,
    "mask2former_swin_l_22k_ade20k": 215,
}
OPENMMLAB_NAMES = (
    ("backbone.stages.", "backbone.layers."),
    (".attn.w_msa.", ".attn."),
    (".ffn.layers.0.0.", ".mlp.fc1."),
    (".ffn.layers.1.", ".mlp.fc2."),
    (".patch_embed.projection.", ".patch_embed.proj."),
)


def load_mmseg(name: str) -> Config:
    cfg = Config.fromfile(MMSEG / f"{name}.py")
    init_default_scope("mmseg")
    return cfg


@pytest.mark.parametrize("name", TWINS)
def test_differs_from_mmsegs_recipe_only_as_meant(name):
    ours, theirs = resolve(load(name)), resolve(load_mmseg(TWINS[name]))
    meant = EVERYWHERE
    if name.startswith("upernet"):
        meant += UPERNET_ONLY
    elif name.startswith("mask2former"):
        meant += MASK2FORMER_ONLY
    else:
        meant += KNET_ONLY
    if "384x384" in TWINS[name]:
        meant += IMAGE_SIZE
    if "640x640" in TWINS[name]:
        meant += UNPADDED
    assert_differs_only_as_meant(ours, theirs, meant)


def resolve(cfg: Config) -> dict:
    """What decides on training and testing, with the arguments of the backbone spelled out."""
    settings = cfg.to_dict()
    backbone = settings["model"]["backbone"]
    arch = backbone.pop("arch", None)
    if arch:
        backbone |= ARCHS[arch]._asdict()
    settings["model"]["backbone"] = state_defaults(backbone, SwinTransformer)
    read = {*inspect.signature(Runner.__init__).parameters, "tta_model", "tta_pipeline"}
    return {key: value for key, value in settings.items() if key in read | {"auto_scale_lr"}}


@pytest.mark.parametrize(("name", "published"), PARAMETERS.items(), ids=PARAMETERS)
def test_parameters_as_published(name, published):
    count = sum(p.numel() for p in build_on_meta(load(name)).parameters())
    assert round(count / 1e6) == published


@pytest.mark.parametrize(
    "name",
    [
        "upernet_swin_t",
        "upernet_swin_b_384",
        "upernet_swin_v2_t",
        "upernet_swin_v2_l_22k",
        "mask2former_swin_t_ade20k",
        "mask2former_swin_b_ade20k",
        "knet_swin_t",
    ],
)
def test_families_learn_and_predict(name):
    """A training step and a prediction, small, at a size that windows do not divide."""
    cfg = load(name)
    if name.startswith("knet"):
        narrow_kernel_updates(cfg.model.decode_head)
    found, *_ = learn_and_predict(cfg)
    assert found.pred_sem_seg.data.shape == (1, *SIDES)


def narrow_kernel_updates(head: dict) -> None:
    """Cuts the channels of K-Net's head from 512 to 32, in place."""
    head.kernel_generate_head.channels = 32
    for update in head.kernel_update_head:
        update.update(in_channels=32, out_channels=32, feedforward_channels=64)
        update.kernel_updator_cfg.update(in_channels=16, feat_channels=16, out_channels=16)


@pytest.mark.parametrize("name", NAMES)
def test_classes_are_those_of_the_data(name):
    cfg = load(name)
    classes = DATASETS.get(cfg.train_dataloader.dataset.type).METAINFO["classes"]
    heads = [part for part in find_dicts(cfg.model) if "num_classes" in part]
    assert heads and {head.num_classes for head in heads} == {len(classes)}


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith("_shapes")])
def test_backbone_has_the_shape_that_the_name_of_its_weights_tells(name):
    """Variant, window and, of V2, the unit of the position bias."""
    backbone = load(name).model.backbone
    weights = Path(backbone.init_cfg.checkpoint).stem
    version, arch, window, side = re.match(
        r"swin(v2)?_(\w+)_patch4_window(\d+)_(\d+)(?:_22k)?$", weights
    ).groups()
    window, side = int(window), int(side)
    assert backbone.arch == arch
    assert ("_22k" in weights) == ("_22k" in name)
    if version:
        assert backbone.type == "swin_mm.SwinTransformerV2"
        # In pretraining a window shrinks to the map where that is smaller.
        units = tuple(min(window, side // 4 // 2**i) for i in range(4))
        assert tuple(backbone.get("pretrained_window_sizes", backbone.window_size)) == units
    else:
        assert backbone.type == "swin_mm.SwinTransformer"
        assert backbone.get("window_size", 7) == window


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["upernet_swin_s", "mask2former_swin_s_ade20k", "knet_swin_t", "knet_swin_l_22k"]
)
def test_rate_and_decay_of_every_parameter_are_mmsegs(name):
    ours = rates(build_on_meta(load(name)), load(name).optim_wrapper)
    cfg = load_mmseg(TWINS[name])
    cfg.model.pretrained = None
    cfg.model.backbone.update(embed_dims=24, init_cfg=None)  # names are all that matters
    theirs = rates(MODELS.build(cfg.model), cfg.optim_wrapper)
    assert ours == {name_as_ours(key): value for key, value in theirs.items()}


def test_v2_spares_its_scales_and_position_network_from_decay():
    cfg = load("upernet_swin_v2_t")
    free = {
        name
        for name, (_, decay) in rates(build_on_meta(cfg), cfg.optim_wrapper).items()
        if not decay
    }
    assert {"backbone.layers.0.blocks.0.attn.logit_scale"} < free
    assert {"backbone.layers.0.blocks.0.attn.cpb_mlp.0.weight"} < free
    assert all(re.search(r"norm|logit_scale|cpb_mlp", name) for name in free)


def name_as_ours(key: str) -> str:
    for old, new in OPENMMLAB_NAMES if key.startswith("backbone.") else ():
        key = key.replace(old, new)
    return key


def rates(model: torch.nn.Module, optim_wrapper: dict) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of each parameter."""
    groups = build_optim_wrapper(model, optim_wrapper).optimizer.param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in groups
        for parameter in group["params"]
    }


def find_dicts(node) -> list[dict]:
    """All mappings within a config."""
    if isinstance(node, dict):
        return [node, *(found for value in node.values() for found in find_dicts(value))]
    if isinstance(node, (list, tuple)):
        return [found for value in node for found in find_dicts(value)]
    return []
