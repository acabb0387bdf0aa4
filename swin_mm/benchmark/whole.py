"""Whole detectors and segmentors: their steps, and random or loaded batches."""

import sys
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import partial
from itertools import chain, repeat
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.model.utils import revert_sync_batchnorm
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from mmengine.structures import InstanceData, PixelData
from torch import Tensor, nn

from swin_mm.benchmark.peers import MissingPeerError
from swin_mm.benchmark.workload import Size, Workload
from swin_mm.checkpoint.convert import convert
from swin_mm.checkpoint.layouts.mmdet import MMDET
from swin_mm.configs import ConfigError
from swin_mm.datasets.check.settings import find_num_classes
from swin_mm.models.backbones.arguments import resolve_arch

FRAMEWORKS = ("mmdet", "mmseg")
NUM_OBJECTS = 7  # in an image, the mean of COCO
COMPILED = ("backbone", "neck")  # assigners and samplers do not compile


class ModelStep:
    """One step of a model as its framework does it.

    Training is data preprocessing, with the copy to the device, losses, backward and the
    optimizer's step; inference is preprocessing and prediction. Images, annotations and weights
    are random, so a detector finds nothing unless the workload has `objects`.

    The library is `swin_mm`, or the framework of the config, whose own classes then replace ours,
    with the same weights.

    Raises:
        MissingPeerError: The library has no such model.
    """

    def __init__(self, library: str, work: Workload, compile_args: dict | None = None) -> None:
        cfg = _prepare_config(library, work)
        self.work = work
        self.model: BaseModel = build_model(cfg, work.device)
        if library != "swin_mm":
            copy_weights(build_model(_prepare_config("swin_mm", work), work.device), self.model)
        self.model.train(work.mode == "train")
        if compile_args is not None:
            for name, child in self.model.named_children():
                if name in COMPILED:
                    child.compile(dynamic=len(work.sizes) > 1 or None, **compile_args)
        self.data = [make_batch(cfg, work.batch, size) for size in work.sizes]
        self.optim_wrapper: OptimWrapper | None = None
        if work.mode == "train":
            self.optim_wrapper = build_optim_wrapper(self.model, cfg.optim_wrapper)
        if work.objects:
            find_objects(self.model, partial(self.run, 0), work.objects)

    def run(self, index: int) -> Any:
        """One step on the batch of `index`."""
        if self.optim_wrapper is not None:
            return self.model.train_step(self.data[index], self.optim_wrapper)
        with torch.no_grad(), self.work.autocast():
            return self.model.test_step(self.data[index])

    def kept(self) -> Any:
        """Tensors beside parameters that stay from step to step."""
        optimizer = self.optim_wrapper and self.optim_wrapper.optimizer
        return [dict(state) for state in optimizer.state.values()] if optimizer else []


def build_model(cfg: Config, device: torch.device) -> nn.Module:
    """Builds the model of a config with random weights, always the same; `cfg` is not changed."""
    init_default_scope(cfg.default_scope)
    settings = deepcopy(cfg.model)
    settings.backbone.init_cfg = None  # weights do not change the time, and would be downloaded
    torch.manual_seed(0)
    # As mmengine's runner does where one process trains.
    model = revert_sync_batchnorm(MODELS.build(settings))
    model.init_weights()
    return model.to(device)


def copy_weights(ours: Any, theirs: nn.Module) -> None:
    """Gives a framework's own model the weights of ours."""
    backbone = convert(ours.backbone.state_dict(), MMDET).state
    state = theirs.state_dict()  # with buffers that ours does not have
    state |= {k: value for k, value in ours.state_dict().items() if k in state}
    state |= {f"backbone.{key}": value for key, value in backbone.items()}
    theirs.load_state_dict(state)


def find_objects(model: Any, run: Callable[[], Sequence[Any]], count: int) -> None:
    """Sets the limits of a two-stage detector so that `run` finds `count` objects in each image.

    Random weights give all classes nearly the same score, below any usual threshold. Twice as many
    candidates as objects, or more, are left to NMS.
    """
    if not hasattr(model, "roi_head"):
        raise ValueError("the number of objects can be chosen for two-stage detectors alone")
    heads, cfg, scores = model.roi_head.bbox_head, model.roi_head.test_cfg, list[Tensor]()
    head = heads[-1] if isinstance(heads, nn.ModuleList) else heads
    handle = head.register_forward_hook(lambda *call: scores.append(call[2][0].detach()))
    run()
    handle.remove()
    ranked = scores[0].float().softmax(1)[:, :-1].flatten().sort(descending=True).values
    cfg.max_per_img = count
    candidates, found = count, [0]
    while candidates < len(ranked) - 1:
        candidates = min(2 * candidates, len(ranked) - 1)
        cfg.score_thr = ranked[candidates].item()
        found = [len(sample.pred_instances) for sample in run()]
        if min(found) == count:
            return
    raise ValueError(f"NMS leaves {min(found)} objects of an image, not {count}: ask for fewer")


def stock_config(cfg: Config) -> Config:
    """The config with the classes of its framework in place of swin_mm's."""
    cfg = deepcopy(cfg)
    backbone = cfg.model.backbone
    if backbone.type != "swin_mm.SwinTransformer":
        raise MissingPeerError(f"{cfg.default_scope} has no class for {backbone.type}")
    sizes = (backbone.get(key) for key in ("embed_dims", "depths", "num_heads"))
    backbone.update(resolve_arch(backbone.pop("arch", None), *sizes)._asdict())
    backbone.pop("attn_backend", None)
    use_stock_types(cfg.model, cfg.default_scope)
    return cfg


def use_stock_types(node: Any, scope: str) -> None:
    """Replaces `swin_mm.NAME` by `scope.NAME` in a config, in place; arguments are the same."""
    if isinstance(node, dict):
        kind = node.get("type")
        if isinstance(kind, str) and kind.startswith("swin_mm."):
            node["type"] = kind.replace("swin_mm", scope, 1)
    for child in node.values() if isinstance(node, dict) else node:
        if isinstance(child, dict | list | tuple):
            use_stock_types(child, scope)


def _prepare_config(library: str, work: Workload) -> Config:
    cfg = deepcopy(work.given_config())
    if library not in ("swin_mm", cfg.default_scope):
        raise MissingPeerError(f"{library} has no part in a config of {cfg.default_scope}")
    if library != "swin_mm":
        cfg = stock_config(cfg)
    if cfg.default_scope == "mmseg":
        # Batches are of one size, so there is nothing to pad to a crop size.
        cfg.model.data_preprocessor.update(size=None, size_divisor=1, test_cfg=None)
    if work.mode == "train" and work.dtype != "fp32":
        if work.dtype == "fp16" and work.device.type == "cpu":
            raise ValueError("float16 training of a whole model needs a GPU; use bf16")
        dtype = {"bf16": "bfloat16", "fp16": "float16"}[work.dtype]
        cfg.optim_wrapper.update(type="swin_mm.AmpOptimWrapper", dtype=dtype)
    return cfg


def loaded_batches(cfg: Config) -> Iterator[dict[str, Any]]:
    """Gives the batches that training would get, epoch after epoch, from its own data loader."""
    init_default_scope(cfg.default_scope)
    try:
        loader = Runner.build_dataloader(deepcopy(cfg.train_dataloader), seed=0)
    except FileNotFoundError as error:
        raise ConfigError(
            f"the training data of the config are missing ({error}); "
            "--profile --size HxW takes random images instead"
        ) from error

    return chain.from_iterable(repeat(loader))


def make_batch(cfg: Config, batch: int, size: Size) -> dict[str, list]:
    """Makes random images of `(H, W)` pixels with random annotations, as a data loader does."""
    random = np.random.default_rng(0)
    # The smallest number, so that random labels suit every head.
    counts = [count for _, count in find_num_classes(cfg.model, "model")]
    classes = min(counts, default=sys.maxsize)
    make = _make_detection if cfg.default_scope == "mmdet" else _make_segmentation
    images, samples = [], []
    for i in range(batch):
        image = random.integers(0, 256, (3, *size), dtype=np.uint8)
        sample = make(random, size, classes)
        sample.set_metainfo(
            dict(img_id=i, img_path="", ori_shape=size, img_shape=size, scale_factor=(1.0, 1.0))
        )
        if (cfg.model.get("data_preprocessor") or {}).get("pad_seg"):  # detectors with label maps
            labels = random.integers(0, classes, (1, *size))
            sample.gt_sem_seg = PixelData(sem_seg=torch.from_numpy(labels))
        images.append(torch.from_numpy(image))
        samples.append(sample)
    return dict(inputs=images, data_samples=samples)


def _make_detection(random: np.random.Generator, size: Size, classes: int) -> Any:
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    height, width = size
    sides = random.uniform(0.05, 0.5, (NUM_OBJECTS, 2)) * (width, height)
    corners = random.uniform(0, 1, (NUM_OBJECTS, 2)) * ((width, height) - sides)
    boxes = np.hstack([corners, corners + sides]).astype(np.float32)
    masks = np.zeros((NUM_OBJECTS, height, width), dtype=np.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.astype(int), strict=True):
        mask[top : bottom + 1, left : right + 1] = 1
    found = InstanceData(
        bboxes=torch.from_numpy(boxes),
        labels=torch.from_numpy(random.integers(0, classes, NUM_OBJECTS)),
        masks=BitmapMasks(masks, height, width),
    )
    none = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    return DetDataSample(gt_instances=found, ignored_instances=none)


def _make_segmentation(random: np.random.Generator, size: Size, classes: int) -> Any:
    from mmseg.structures import SegDataSample

    labels = torch.from_numpy(random.integers(0, classes, (1, *size)))
    return SegDataSample(gt_sem_seg=PixelData(data=labels))
