"""A training step, or a prediction, of a whole detector or segmentor."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.model.utils import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData, PixelData
from torch import nn

from swin_mm.benchmark.backbones import MissingPeerError
from swin_mm.benchmark.work import Size, Work
from swin_mm.models.backbones.arguments import resolve_arch

FRAMEWORKS = ("mmdet", "mmseg")
OBJECTS = 7  # in an image, the mean of COCO
PARTS = ("backbone", "neck")  # what swin_mm replaces


class WholeStep:
    """One step of a model as its framework does it.

    Training is data preprocessing, with the copy to the device, losses, backward and the
    optimizer's step; inference is preprocessing and prediction, without masks being encoded.
    Images are random, with 7 boxes and masks each, or random labels of all pixels; weights are
    random too, so a detector finds as many objects as it may. With the frameworks' own classes in
    place of swin_mm's it is the stock model.

    Args:
        library: `swin_mm`, or the framework of the config.
        work: A `config`, not compiled in wholes: assigners and samplers are no code to compile.
        is_compiled: Whether backbone and neck are compiled.

    Raises:
        MissingPeerError: The library has no such model.
    """

    def __init__(self, library: str, work: Work, is_compiled: bool) -> None:
        cfg = _prepare_config(library, work)
        self.work = work
        self.model = build_model(cfg, work.device).train(work.mode == "train")
        if is_compiled:
            for name in PARTS:
                if getattr(self.model, f"with_{name}", name == "backbone"):
                    getattr(self.model, name).compile(dynamic=len(work.sizes) > 1 or None)
        self.data = [make_batch(cfg, work.batch, size) for size in work.sizes]
        self.optim_wrapper = None
        if work.mode == "train":
            self.optim_wrapper = build_optim_wrapper(self.model, cfg.optim_wrapper)

    def run(self, index: int) -> Any:
        """One step on the batch of `index`."""
        if self.optim_wrapper is not None:
            return self.model.train_step(self.data[index], self.optim_wrapper)
        with torch.no_grad(), self.work.autocast():
            return self.model.test_step(self.data[index])


def build_model(cfg: Config, device: torch.device) -> nn.Module:
    """Builds a model with random weights, always the same.

    Args:
        cfg: Whole config of a detector or a segmentor, left as it is.
        device: Where the model lives.
    """
    init_default_scope(cfg.default_scope)
    settings = deepcopy(cfg.model)
    settings.backbone.init_cfg = None  # weights do not change the time, and would be downloaded
    torch.manual_seed(0)
    # As mmengine's runner does it where one process trains.
    model = revert_sync_batchnorm(MODELS.build(settings))
    model.init_weights()
    return model.to(device)


def stock_config(cfg: Config) -> Config:
    """The config with the classes of its framework in place of swin_mm's.

    Raises:
        MissingPeerError: The framework has no such class.
    """
    cfg = deepcopy(cfg)
    backbone = cfg.model.backbone
    if backbone.type != "swin_mm.SwinTransformer":
        raise MissingPeerError(f"{cfg.default_scope} has no class for {backbone.type}")
    backbone.type = f"{cfg.default_scope}.SwinTransformer"
    variant = resolve_arch(
        backbone.pop("arch", None),
        backbone.get("embed_dims"),
        backbone.get("depths"),
        backbone.get("num_heads"),
    )
    backbone.update(variant._asdict())
    backbone.pop("attn_backend", None)
    take_stock_types(cfg.model, cfg.default_scope)
    return cfg


def take_stock_types(node: Any, scope: str) -> None:
    """Names the framework's class for every drop-in of ours, in place; arguments are the same."""
    if isinstance(node, dict):
        kind = node.get("type")
        if isinstance(kind, str) and kind.startswith("swin_mm."):
            node["type"] = kind.replace("swin_mm", scope, 1)
    for child in node.values() if isinstance(node, dict) else node:
        if isinstance(child, dict | list | tuple):
            take_stock_types(child, scope)


def _prepare_config(library: str, work: Work) -> Config:
    cfg = deepcopy(work.config)
    scope = cfg.get("default_scope")
    if scope not in FRAMEWORKS:
        raise ValueError(f"the config's default_scope must be one of {FRAMEWORKS}, got {scope!r}")
    if library not in ("swin_mm", scope):
        raise MissingPeerError(f"{library} has no model for a config of {scope}")
    if library == scope:
        cfg = stock_config(cfg)
    if scope == "mmseg":
        # Batches are of one size, so there is nothing to pad to a crop size.
        cfg.model.data_preprocessor.update(size=None, size_divisor=1, test_cfg=None)
    if work.mode == "train" and work.dtype != "fp32":
        if work.dtype == "fp16" and work.device.type == "cpu":
            raise ValueError("float16 training of a whole model needs a GPU; bf16 does not")
        dtype = {"bf16": "bfloat16", "fp16": "float16"}[work.dtype]
        cfg.optim_wrapper.update(type="swin_mm.AmpOptimWrapper", dtype=dtype)
    return cfg


def _count_classes(node: Any) -> int:
    """The smallest `num_classes` of a config, so that random labels suit every head."""
    found = [node["num_classes"]] if isinstance(node, dict) and "num_classes" in node else []
    children = node.values() if isinstance(node, dict) else node
    nested = [child for child in children if isinstance(child, dict | list | tuple)]
    found += [count for child in nested if (count := _count_classes(child)) < np.inf]
    return min(found, default=np.inf)


def make_batch(cfg: Config, batch: int, size: Size) -> dict[str, list]:
    """Makes random images with random annotations, as a data loader gives them.

    Args:
        cfg: Whole config, of mmdet or mmseg.
        batch: Number of images.
        size: `(H, W)` in pixels.
    """
    make = _make_detection if cfg.default_scope == "mmdet" else _make_segmentation
    classes = _count_classes(cfg.model)
    data = make(batch, size, classes)
    if (cfg.model.get("data_preprocessor") or {}).get("pad_seg"):  # detectors with label maps
        for sample in data["data_samples"]:
            sample.gt_sem_seg = PixelData(sem_seg=torch.randint(classes, (1, *size)))
    return data


def _make_samples(
    batch: int, size: Size, make_sample: Callable[[np.random.Generator], Any]
) -> dict[str, list]:
    """Images and samples, as a data loader gives them."""
    random = np.random.default_rng(0)
    images, samples = [], []
    for i in range(batch):
        image = random.integers(0, 256, (3, *size), dtype=np.uint8)
        sample = make_sample(random)
        sample.set_metainfo(
            dict(img_id=i, img_path="", ori_shape=size, img_shape=size, scale_factor=(1.0, 1.0))
        )
        images.append(torch.from_numpy(image))
        samples.append(sample)
    return dict(inputs=images, data_samples=samples)


def _make_detection(batch: int, size: Size, classes: int) -> dict[str, list]:
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    height, width = size

    def make_sample(random: np.random.Generator) -> DetDataSample:
        sides = random.uniform(0.05, 0.5, (OBJECTS, 2)) * (width, height)
        corners = random.uniform(0, 1, (OBJECTS, 2)) * ((width, height) - sides)
        boxes = np.hstack([corners, corners + sides]).astype(np.float32)
        masks = np.zeros((OBJECTS, height, width), dtype=np.uint8)
        for mask, (left, top, right, bottom) in zip(masks, boxes.astype(int), strict=True):
            mask[top : bottom + 1, left : right + 1] = 1
        found = InstanceData(
            bboxes=torch.from_numpy(boxes),
            labels=torch.from_numpy(random.integers(0, classes, OBJECTS)),
            masks=BitmapMasks(masks, height, width),
        )
        none = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
        return DetDataSample(gt_instances=found, ignored_instances=none)

    return _make_samples(batch, size, make_sample)


def _make_segmentation(batch: int, size: Size, classes: int) -> dict[str, list]:
    from mmseg.structures import SegDataSample

    def make_sample(random: np.random.Generator) -> SegDataSample:
        labels = torch.from_numpy(random.integers(0, classes, (1, *size)))
        return SegDataSample(gt_sem_seg=PixelData(data=labels))

    return _make_samples(batch, size, make_sample)
