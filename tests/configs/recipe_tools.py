"""Recipes for tests: listed, loaded, cut down to a size that a test can wait for, and fed."""

import ast
import copy
import functools
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.model.utils import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from torch import nn

from swin_mm.models.backbones.arguments import ARCHS

CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.py"))
WIDTH = 32  # channels of the first stage, for 96 to 192
SIDES = (97, 141)  # of images, in pixels; windows do not divide them


def load(name: str) -> Config:
    """A recipe by the name of its file, with its scope as the default one."""
    cfg = copy.deepcopy(_read(name))
    init_default_scope(cfg.default_scope)
    return cfg


@functools.cache
def _read(name: str) -> Config:
    return Config.fromfile(CONFIGS / f"{name}.py")


def read_docstring(name: str) -> str:
    """What the file of a recipe says about it."""
    return ast.get_docstring(ast.parse((CONFIGS / f"{name}.py").read_text()))


def build_on_meta(cfg: Config) -> nn.Module:
    """The model in full size, without memory for its parameters."""
    with torch.device("meta"):
        return MODELS.build(cfg.model)


def build_small(cfg: Config) -> nn.Module:
    """The model with few layers and channels, initialised; changes the config."""
    cut(cfg.model)
    narrow(cfg.model)
    # As mmengine's runner does it where there is no process group.
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    model.init_weights()
    return model


def cut(node: dict) -> None:
    """Cuts numbers of layers and queries, and what needs a download, in place."""
    for key, value in node.items():
        if key == "init_cfg" and value and "checkpoint" in value or key == "batch_augments":
            node[key] = None  # the augments would pad to 1024 pixels
        elif key in ("num_layers", "num_blocks"):
            node[key] = 2
        elif key in ("num_queries", "num_points", "num_proposals", "max_per_img", "num"):
            node[key] = min(value, 20)  # `num` is that of the samplers
        for child in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(child, dict):
                cut(child)


def narrow(model: dict) -> None:
    """Narrows the backbone and tells the parts that read its maps, in place."""
    backbone = model.backbone
    full_width = backbone.get("embed_dims") or ARCHS[backbone.get("arch") or "tiny"].embed_dims
    widths = {full_width * 2**i: WIDTH * 2**i for i in range(4)}
    backbone.update(embed_dims=WIDTH, depths=(2, 2, 2, 2), num_heads=(2, 4, 8, 16))

    def tell(node: dict) -> None:
        for key, value in node.items():
            if key == "in_channels" and isinstance(value, (list, tuple)):
                node[key] = [widths[width] for width in value]
            for child in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(child, dict):
                    tell(child)

    tell({name: part for name, part in model.items() if name != "backbone"})
    for name in ("decode_head", "auxiliary_head"):
        head = model.get(name)
        if head and head.type.split(".")[-1] in ("UPerHead", "FCNHead"):
            head.channels = 32
        if head and isinstance(head.get("in_channels"), int):
            head.in_channels = widths[head.in_channels]


def narrow_heads(node: dict) -> None:
    """Takes 32 channels for the 256 of neck and heads, in place."""
    for key, value in node.items():
        if key.endswith("channels") and isinstance(value, int):
            node[key] = {256: 32, 1024: 64}.get(value, value)
        for child in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(child, dict):
                narrow_heads(child)


def detection_data(with_mask: bool = True, with_semantic: bool = False) -> dict:
    """A batch of two images with boxes, and masks or a label map if asked for."""
    from mmdet.testing import demo_mm_inputs

    height, width = SIDES
    return demo_mm_inputs(
        2,
        [(3, height, width), (3, height - 10, width - 30)],
        num_items=[3, 4],
        num_classes=6,  # those of the built-in data
        with_mask=with_mask,
        with_semantic=with_semantic,
    )


def segmentation_data() -> dict:
    """A batch of two images, equal, with a label map.

    Two, since batch norm over one pooled pixel of one image has nothing to average.
    """
    from mmseg.structures import SegDataSample

    image = torch.randint(256, (3, *SIDES), dtype=torch.uint8)
    sample = SegDataSample(
        metainfo=dict(img_shape=SIDES, ori_shape=SIDES, pad_shape=SIDES, padding_size=[0] * 4)
    )
    labels = torch.zeros(1, *SIDES, dtype=torch.long)
    labels[:, 20:60, 30:90] = 2
    sample.gt_sem_seg = PixelData(data=labels)
    return dict(inputs=[image] * 2, data_samples=[sample.clone() for _ in range(2)])


def learn_and_predict(cfg: Config) -> list:
    """Predictions of the small model after a training step whose gradients are checked."""
    torch.manual_seed(0)
    if cfg.default_scope == "mmdet":
        cfg.model.data_preprocessor.setdefault("pad_size_divisor", 32)  # RTMDet's pipeline pads
        data = detection_data(
            with_mask="segm" in str(cfg.val_evaluator),
            with_semantic=bool(cfg.model.data_preprocessor.get("pad_seg")),
        )
    else:
        cfg.model.data_preprocessor.size = SIDES  # it pads to the crops of training
        data = segmentation_data()
    model = build_small(cfg)
    model.train()
    losses = model(**model.data_preprocessor(copy.deepcopy(data), training=True), mode="loss")
    loss, _ = model.parse_losses(losses)
    loss.backward()
    assert torch.isfinite(loss)
    for name, parameter in model.backbone.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    model.eval()
    with torch.no_grad():
        return model(**model.data_preprocessor(data, training=False), mode="predict")
