"""Which models can be exported, and how."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmdet.models.task_modules import (
    AnchorGenerator,
    DeltaXYWHBBoxCoder,
    DistancePointBBoxCoder,
    MlvlPointGenerator,
)
from torch import nn

from swin_mm.configs import bare_type, innermost_dataset
from swin_mm.datasets.reader import Reader
from swin_mm.export.detectors import (
    DenseDetector,
    QueryDetector,
    SparseDetector,
    TwoStageDetector,
)
from swin_mm.export.inputs import ImageInput
from swin_mm.export.others import Features, MaskQueries, Segmentor
from swin_mm.heads import unsupported
from swin_mm.models.backbones.base import SwinBackbone

PARTS = ("model", "neck", "backbone")
ONE_STAGE = ("RetinaHead", "ATSSHead", "RTMDetHead", "RTMDetSepBNHead")
ROI_HEADS = ("StandardRoIHead", "CascadeRoIHead", "HybridTaskCascadeRoIHead")
MASK_QUERIES = ("Mask2Former", "MaskFormer")
# Why others are not exported, by class of detector or head.
REASONS = {
    "RepPointsDetector": "its deformable convolutions are in no operator that runtimes share",
    "SOLO": "the number of its masks differs from image to image",
}
REASONS["SOLOv2"] = REASONS["SOLO"]
PROMISED = (
    "UPerNet, Faster R-CNN, Mask R-CNN, their cascades, HTC, Sparse R-CNN, RetinaNet, ATSS and, "
    "for one size, DINO, RTMDet, Mask2Former, MaskFormer and other segmentors"
)
# A stage's map of one pixel would be recorded as one pixel for good.
MIN_SIDE = 65


class ExportError(ValueError):
    """A model that cannot be exported, or a file that does not compute what the model does."""


@dataclass
class Plan:
    """A model as it will be exported.

    Attributes:
        module: Takes images `(B, H, W, bands)` uint8, and has `output_names`.
        task: `detection`, `instance segmentation`, `panoptic segmentation`, `semantic segmentation`
            or `features`.
        bands: Of an image.
        padding: What a picture smaller than a fixed size is padded with, for each band.
        resize: How test images are resized: `scale` and `keep_ratio`, or `factor`; `None` for not.
        mask_threshold: From which value on a pixel belongs to an object.
        turn: Whether the test pipeline turns images as EXIF says.
        needs_size: Whether it can be exported for one size and batch alone.
        panoptic: How masks become segments: `things`, the number of classes that are counted, which
            come first; from which `score` on a mask is taken; the `share` of its pixels that must
            be left to it; whether it has its `own_pixels` alone.
    """

    module: Any
    task: str
    bands: int
    padding: list[int]
    resize: dict[str, Any] | None
    mask_threshold: float = 0.5
    turn: bool = True
    needs_size: bool = False
    panoptic: dict[str, Any] | None = None


def make_plan(model: Any, test_dataset: Mapping[str, Any] | None, part: str) -> Plan:
    """Finds out how a model of mmdet or mmseg is exported, or its `neck` or `backbone` alone.

    The pipeline of `test_dataset` says how images are read and resized; without it RGB images are
    taken as they are.

    Raises:
        ExportError: The model is none of those that can be exported; says why.
    """
    if part not in PARTS:
        raise ExportError(f"part must be one of {PARTS}, got {part!r}")
    if not isinstance(getattr(model, "backbone", None), SwinBackbone):
        found = type(getattr(model, "backbone", model)).__name__
        raise ExportError(f"the backbone must be a Swin of swin_mm, got {found}")
    steps = list(innermost_dataset(test_dataset).get("pipeline", ())) if test_dataset else []
    preprocessor: Any = model.data_preprocessor
    bands = model.backbone.patch_embed.proj.in_channels
    image_input = ImageInput(preprocessor, _flips_bands(preprocessor, steps, bands))
    if image_input.pads_to_size:
        raise ExportError(
            "data_preprocessor.test_cfg.size pads images to one size: use size_divisor, or export "
            "with data_preprocessor.test_cfg=None and --size"
        )
    module, task = _wrap(model, image_input, part)
    padding = [0] * bands
    if image_input.is_normalised:
        mean = image_input.mean.flatten().tolist()
        mean = mean[::-1] if image_input.flip_bands else mean
        padding = [min(max(round(value), 0), 255) for value in mean]
    roi_cfg = getattr(getattr(model, "roi_head", None), "test_cfg", None) or {}
    return Plan(
        module.eval(),
        task,
        bands,
        padding,
        _find_resize(steps),
        roi_cfg.get("mask_thr_binary", 0.5),
        Reader.of(steps).turns if steps else True,
        part == "model" and _needs_size(model),
        _panoptic_rule(model) if task == "panoptic segmentation" else None,
    )


def _panoptic_rule(model: Any) -> dict[str, Any]:
    """What mmdet's `MaskFormerFusionHead` reads in `test_cfg`, with its defaults."""
    cfg = model.test_cfg
    return dict(
        things=model.num_things_classes,
        score=cfg.get("object_mask_thr", 0.8),
        share=cfg.get("iou_thr", 0.8),
        own_pixels=cfg.get("filter_low_score", False),
    )


def _flips_bands(preprocessor: Any, steps: list[dict], bands: int) -> bool:
    """Whether the model takes BGR: files take RGB, and mm's loaders of three bands give BGR."""
    is_multi_band = any("MultiBand" in bare_type(step) for step in steps)
    if bands != 3 or is_multi_band:
        return False
    key = (
        "_channel_conversion"
        if hasattr(preprocessor, "_channel_conversion")
        else "channel_conversion"
    )
    return not getattr(preprocessor, key)


def _find_resize(steps: list[dict]) -> dict[str, Any] | None:
    """The rule by which a test pipeline resizes.

    Raises:
        ExportError: There are several views, or a way that the runtime does not know.
    """
    found = [step for step in steps if "Resize" in bare_type(step)]
    if not found or bare_type(found[0]) == "ResizeShortestEdge":
        if found:
            raise ExportError("the test pipeline resizes with ResizeShortestEdge: use Resize")
        return None
    step = found[0]
    if len(found) > 1 or bare_type(step) not in ("Resize", "FixShapeResize"):
        kinds = ", ".join(bare_type(step) for step in found)
        raise ExportError(f"the test pipeline must have one Resize, got {kinds}")
    if (factor := step.get("scale_factor")) is not None:
        pair = [factor, factor] if isinstance(factor, int | float) else list(factor)
        return None if pair == [1.0, 1.0] else dict(factor=pair)
    scale = step.get("scale") or (step.get("width"), step.get("height"))
    scale = [scale, scale] if isinstance(scale, int) else list(scale)
    return dict(scale=scale, keep_ratio=bool(step.get("keep_ratio", False)))


def _wrap(model: Any, image_input: ImageInput, part: str) -> tuple[Any, str]:
    if part != "model":
        with_neck = part == "neck"
        if with_neck and not model.with_neck:
            raise ExportError("the model has no neck: export the backbone")
        count = model.neck.num_outs if with_neck else len(model.backbone.out_indices)
        return Features(model, image_input, with_neck, count), "features"
    if hasattr(model, "decode_head"):
        if reason := _why_not_segmentor(model):
            raise ExportError(reason)
        return Segmentor(model, image_input), "semantic segmentation"
    if hasattr(model, "roi_head"):
        if type(model.roi_head).__name__ == "SparseRoIHead" and not model.roi_head.with_mask:
            return SparseDetector(model, image_input), "detection"
        if reason := _why_not_two_stage(model):
            raise ExportError(reason)
        task = "instance segmentation" if model.roi_head.with_mask else "detection"
        return TwoStageDetector(model, image_input), task
    if type(model).__name__ in MASK_QUERIES:
        kind = "panoptic" if model.test_cfg.get("panoptic_on", True) else "instance"
        return MaskQueries(model, image_input), f"{kind} segmentation"
    if type(model).__name__ == "DINO":
        return QueryDetector(model, image_input), "detection"
    if reason := _why_not_dense(model):
        raise ExportError(reason)
    return DenseDetector(model, image_input), "detection"


def _needs_size(model: Any) -> bool:
    """Whether a model keeps sizes as tensors; see `swin_mm.compat.constant_sizes`."""
    if hasattr(model, "decode_head"):
        return type(model.decode_head).__name__ != "UPerHead"
    head = type(getattr(model, "bbox_head", None)).__name__
    return type(model).__name__ in ("DINO", *MASK_QUERIES) or head.startswith("RTMDet")


def _describe_other(name: str) -> str:
    reason = f": {REASONS[name]}" if name in REASONS else ""
    return f"{name} cannot be exported{reason}. Exported are {PROMISED}"


def _why_not_segmentor(model: Any) -> str | None:
    if isinstance(model.decode_head, nn.ModuleList):
        return _describe_other(type(model).__name__)
    if model.test_cfg.get("mode", "whole") != "whole":
        return (
            "test_cfg.mode='slide' averages windows, as a file does not: "
            "--cfg-options model.test_cfg.mode=whole looks at whole images"
        )
    return None


def _why_not_two_stage(model: Any) -> str | None:
    roi_head = model.roi_head
    if type(roi_head).__name__ not in ROI_HEADS or not model.with_rpn:
        return _describe_other(type(roi_head).__name__)
    if type(model.rpn_head).__name__ != "RPNHead" or not model.rpn_head.use_sigmoid_cls:
        return f"the proposals of {type(model.rpn_head).__name__} cannot be exported"
    if roi_head.with_shared_head:
        return "a shared head between RoIAlign and box head cannot be exported"
    cascade = isinstance(roi_head.bbox_head, nn.ModuleList)
    heads = list(roi_head.bbox_head) if cascade else [roi_head.bbox_head]
    extractors = [roi_head.bbox_roi_extractor]
    reasons = [unsupported.anchors(model.rpn_head), *map(unsupported.box_head, heads)]
    if roi_head.with_mask:
        masks = list(roi_head.mask_head) if cascade else [roi_head.mask_head]
        reasons += map(unsupported.mask_head, masks)
        extractors.append(roi_head.mask_roi_extractor)
    if reason := next(filter(None, reasons), None):
        return f"{reason}, which cannot be exported"
    for extractor in extractors:
        for one in extractor if cascade else [extractor]:
            if type(one).__name__ != "SingleRoIExtractor" or (
                {type(layer).__name__ for layer in one.roi_layers} != {"RoIAlign"}
            ):
                return f"features of {type(one).__name__} cannot be exported; those of RoIAlign can"
            if any(layer.pool_mode != "avg" for layer in one.roi_layers):
                return "RoIAlign with pool_mode='max' cannot be exported; 'avg' can"
    return _why_not_nms(model.rpn_head.test_cfg) or _why_not_nms(roi_head.test_cfg)


def _why_not_dense(model: Any) -> str | None:
    head: Any = getattr(model, "bbox_head", None)
    if type(head).__name__ not in ONE_STAGE or hasattr(model, "rpn_head"):
        return _describe_other(type(model).__name__)
    if not head.use_sigmoid_cls:
        return "a head with softmax cannot be exported; one with sigmoid can"
    if any("Deform" in type(module).__name__ for module in model.modules()):
        return "deformable convolutions have no operator in ONNX that runtimes share"
    generator, coder = head.prior_generator, head.bbox_coder
    is_known = type(generator) in (AnchorGenerator, MlvlPointGenerator)
    if not is_known or getattr(generator, "use_box_type", False):
        return f"anchors of {type(generator).__name__} cannot be exported"
    is_known = type(coder) in (DeltaXYWHBBoxCoder, DistancePointBBoxCoder)
    if not is_known or getattr(coder, "add_ctr_clamp", False):
        return f"boxes coded by {type(coder).__name__} cannot be exported"
    return _why_not_nms(head.test_cfg)


def _why_not_nms(cfg: Any) -> str | None:
    nms = dict(cfg.nms)
    if nms.pop("type", "nms") != "nms" or set(nms) - {"iou_threshold", "class_agnostic"}:
        return (
            f"NMS must be plain, got {dict(cfg.nms)}: soft NMS is in no standard operator: "
            "--cfg-options model.test_cfg.rcnn.nms.type=nms takes plain NMS"
        )
    if nms.get("class_agnostic") and "score_thr" in cfg and "nms_pre" not in cfg:
        return "NMS across classes cannot be exported for heads of regions"
    if cfg.max_per_img < 1:
        return f"test_cfg must limit detections, got max_per_img={cfg.max_per_img}"
    return None
