"""Counts parameters and multiply-adds of a whole detector or segmentor, part by part.

What counts: one multiply-add for each product in a convolution, a linear layer, or a product of two
activations, which is what attention, masks from queries and dynamic kernels are. Papers on vision
print this number as "FLOPs"; `torch.utils.flop_counter`, which counts here, counts multiplication
and addition as two. What does not count, as it is no product of matrices: norms, activations,
softmax, resizing, and the sampling of RoIAlign and of deformable attention; nor NMS.

Products are not computed, they give zeros. Where the work depends on what is found there are as
many boxes as there may be: the `max_per_img` proposals of the region proposal network, and the
`max_per_img` detections of the second stage for its mask heads.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
import torchvision  # noqa: F401  registers torch.ops.torchvision
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count, sdpa_flop_count

from swin_mm.configs import bare_type, innermost_dataset

aten = torch.ops.aten
# Kinds of operations, by the operators that are products of each; all others multiply activations.
CONVOLUTIONS = {aten.convolution, torch.ops.torchvision.deform_conv2d}
LINEAR = {aten.mm, aten.addmm}
# Give zeros without being computed.
SKIPPED = {
    *CONVOLUTIONS,
    *LINEAR,
    aten.bmm,
    aten.baddbmm,
    aten.gelu,
    aten.native_batch_norm,
    aten.native_layer_norm,
    aten.upsample_bilinear2d,
    aten._scaled_dot_product_flash_attention_for_cpu,
    aten.grid_sampler_2d,
    torch.ops.torchvision.roi_align,
}
# Give zeros to tensors of more elements than `SMALL` while a model is built, which is faster.
RANDOM = {aten.uniform_, aten.normal_}
SMALL = 10_000
DETECTION_SHAPE = (800, 1280)  # (H, W) in pixels, as in the Swin paper's tables
WHOLE_CITYSCAPES = (1024, 2048)


class Part(NamedTuple):
    """Parameters of a part of a model, and its multiply-adds by kind.

    Those of activations with activations are called `attention`.
    """

    name: str
    parameters: int
    convolutions: int = 0
    linear: int = 0
    attention: int = 0

    @property
    def multiply_adds(self) -> int:
        return self.convolutions + self.linear + self.attention


class Complexity(NamedTuple):
    """Cost of a model for one image of `(H, W)` pixels: its parts in order, and their sum."""

    model: str
    shape: tuple[int, int]
    parts: list[Part]
    total: Part


def usual_shape(cfg: Config) -> tuple[int, int] | None:
    """The image size `(H, W)`, in pixels, that published tables count a config's model at.

    800 x 1280 on COCO, the crop by four times its side on ADE20K (512 x 2048, 640 x 2560), a whole
    image of Cityscapes; None for other data.
    """
    loader = cfg.get("test_dataloader") or cfg.get("train_dataloader") or {}
    kind = bare_type(innermost_dataset(loader.get("dataset") or {}))
    if kind.startswith("Coco"):
        return DETECTION_SHAPE
    if kind == "CityscapesDataset":
        return WHOLE_CITYSCAPES
    crop = (cfg.model.get("data_preprocessor") or {}).get("size")
    return (crop[0], 4 * crop[0]) if kind == "ADE20KDataset" and crop else None


def count_parameters(cfg: Config) -> int:
    """Number of parameters of a config's model, which is built without memory for them."""
    return sum(parameter.numel() for parameter in build_empty(cfg).parameters())


def count_complexity(cfg: Config, shape: tuple[int, int]) -> Complexity:
    """Counts what a config's model costs in the prediction of one image of `(H, W)` pixels.

    Masks and label maps are not brought back to the size of an original.
    """
    model = build_empty(cfg)
    samples = [_make_sample(shape)]
    module: Any
    for module in model.modules():
        if hasattr(module, "call_qkv"):
            # The counter's hooks would have padded tokens projected, which happens only then.
            module.call_qkv = partial(_project_unpadded, module)
    image = torch.zeros(1, cfg.model.backbone.get("in_channels", 3), *shape)
    mode = _choose_forward(model)
    counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)
    with torch.no_grad(), _no_fast_path(), _SkipProducts(), counter:
        model(image, samples, mode=mode)
    kind = type(model).__name__
    counts = {name: _by_kind(operators) for name, operators in counter.get_flop_counts().items()}
    total = Part("total", sum(p.numel() for p in model.parameters()), **counts["Global"])
    return Complexity(kind, shape, _list_parts(model, kind, counts, total), total)


def build_empty(cfg: Config) -> BaseModel:
    """Builds a config's model quickly, in eval mode, with zeros for parameters.

    Memory is taken when somebody reads it, which nobody does.
    """
    with DefaultScope.overwrite_default_scope(cfg.default_scope), _SkipRandomness():
        model = MODELS.build(cfg.model)
    for parameter in model.parameters():
        parameter.data = torch.zeros(parameter.shape)
    return model.eval()


def _make_sample(shape: tuple[int, int]) -> BaseDataElement:
    sizes = dict.fromkeys(("img_shape", "ori_shape", "pad_shape", "batch_input_shape"), shape)
    return BaseDataElement(metainfo=dict(sizes, scale_factor=(1.0, 1.0)))


def _project_unpadded(attn: Any, x: Tensor) -> tuple[Tensor, Tensor | None]:
    return attn.qkv(x), attn.qkv.bias


def _is_mask2former(model: BaseModel) -> bool:
    from mmdet.models import Mask2FormerHead

    return isinstance(getattr(model, "decode_head", None), Mask2FormerHead)  # mmseg's is one


def _choose_forward(model: BaseModel) -> str:
    """Sees to it that a model can do its `forward` without data; returns the mode to call it in."""
    from mmdet.models import SparseRoIHead

    roi_head = getattr(model, "roi_head", None)
    if isinstance(roi_head, SparseRoIHead):
        return "predict"  # its `tensor` mode computes losses; boxes are fixed in number
    if roi_head is not None:
        model._forward = lambda image, samples: _forward_two_stages(model, image)
    elif _is_mask2former(model):
        model._forward = lambda image, samples: model.decode_head(
            model.extract_feat(image), samples
        )
    return "tensor"


def _forward_two_stages(model: BaseModel, image: Tensor) -> None:
    """A detector with proposals, by as many as there may be."""
    from mmdet.models import HybridTaskCascadeRoIHead

    maps, head = model.extract_feat(image), model.roi_head
    model.rpn_head(maps)
    boxes = torch.zeros(model.test_cfg.rpn.max_per_img, 5)
    found = boxes[: model.test_cfg.rcnn.max_per_img]
    if not isinstance(head.bbox_head, nn.ModuleList):
        head._bbox_forward(maps, boxes)
        if head.with_mask:
            head._mask_forward(maps, found)
        return
    is_hybrid = isinstance(head, HybridTaskCascadeRoIHead)
    semantic = {}
    if is_hybrid and head.with_semantic:
        semantic["semantic_feat"] = head.semantic_head(maps)[1]
    for stage in range(head.num_stages):
        head._bbox_forward(stage, maps, boxes, **semantic)
        if head.with_mask and not is_hybrid:
            head._mask_forward(stage, maps, found)
    if head.with_mask and is_hybrid:  # its mask heads run one after another
        head._mask_forward(-1, maps, found, training=False, **semantic)


def _by_kind(operators: Mapping[Any, int]) -> Counter:
    """Multiply-adds by kind, of the counter's operations by operator."""
    kinds = Counter(convolutions=0, linear=0, attention=0)
    for operator, operations in operators.items():
        is_linear = "linear" if operator in LINEAR else "attention"
        kinds["convolutions" if operator in CONVOLUTIONS else is_linear] += operations // 2
    return kinds


def _list_parts(
    model: BaseModel, root: str, counts: dict[str, Counter[str]], total: Part
) -> list[Part]:
    parts: list[Part] = []
    not_called = []
    rest: Counter[str] = Counter(total._asdict() | {"name": 0})
    for name, module in _find_parts(model):
        path = f"{root}.{name}"
        kinds = counts.get(path) or _sum_children(module, path, counts)
        if path not in counts and name.endswith("head"):
            not_called.append(len(parts))
        parts.append(Part(name, sum(p.numel() for p in module.parameters()), **kinds))
        rest.subtract({**kinds, "parameters": parts[-1].parameters})
    del rest["name"]
    # What a module does is put down to it when it is called; some heads have `forward` called.
    if any(rest.values()) and len(not_called) == 1:
        own = parts[not_called[0]]
        own_kinds: dict[str, Any] = {k: getattr(own, k) + rest[k] for k in Part._fields[2:]}
        parts[not_called[0]] = own._replace(**own_kinds)
        rest = Counter(parameters=rest["parameters"], convolutions=0, linear=0, attention=0)
    if any(rest.values()):
        parts.append(Part("outside of these", **rest))
    return [part for part in parts if any(part[1:])]


def _find_parts(model: BaseModel) -> Iterator[tuple[str, nn.Module]]:
    for name, module in model.named_children():
        if name == "roi_head":
            yield from ((f"{name}.{head}", part) for head, part in module.named_children())
        else:
            yield name, module


def _sum_children(module: nn.Module, path: str, counts: dict[str, Counter[str]]) -> Counter:
    kinds = Counter(convolutions=0, linear=0, attention=0)
    for name, child in module.named_children():
        inner = f"{path}.{name}"
        kinds.update(counts.get(inner) or _sum_children(child, inner, counts))
    return kinds


def _count_deform_conv(
    image_shape: Any, weight_shape: Any, *_: Any, out_shape: Any = None, **__: Any
) -> int:
    return conv_flop_count(image_shape, weight_shape, out_shape)


def _count_attention(query_shape: Any, key_shape: Any, value_shape: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query_shape, key_shape, value_shape)


# Of operators that PyTorch's counter does not know.
FORMULAS: dict[Any, Callable] = {
    torch.ops.torchvision.deform_conv2d: _count_deform_conv,
    aten._scaled_dot_product_flash_attention_for_cpu: _count_attention,
}


class _SkipProducts(TorchDispatchMode):
    """Gives zeros of the right shape for what takes long to compute."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket not in SKIPPED:
            return func(*args, **kwargs)
        device = next(arg.device for arg in args if isinstance(arg, Tensor))
        args, kwargs = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), (args, kwargs))
        out = func(*args, **kwargs)
        return tree_map_only(Tensor, lambda tensor: torch.zeros_like(tensor, device=device), out)


class _SkipRandomness(TorchDispatchMode):
    """Fills large tensors with zeros in place of random numbers."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if func.overloadpacket in RANDOM and args[0].numel() > SMALL:
            return args[0].zero_()
        return func(*args, **(kwargs or {}))


@contextmanager
def _no_fast_path() -> Iterator[None]:
    """Has PyTorch's attention modules do their products one by one, so that they are counted."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
