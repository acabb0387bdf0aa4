"""Runs exported models with NumPy, Pillow and onnxruntime or OpenVINO, without PyTorch.

Packages of AOTInductor need PyTorch and torchvision. This file imports nothing else of swin_mm, so
it can be copied beside an exported model:

    from runtime import ExportedModel

    model = ExportedModel("mask_rcnn.onnx")
    found = model.predict("street.jpg")
    print(found.boxes, found.scores, found.names)
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
from PIL import Image, ImageOps

METADATA_KEY = "swin_mm"
METADATA_RECORD = f"data/extra/{METADATA_KEY}"  # of a package, below its own name
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}  # of exported models, by format
Run = Callable[[dict[str, np.ndarray]], Sequence[np.ndarray]]


@dataclass
class Found:
    """What was found in an image; fields that a model does not predict are `None`.

    Attributes:
        boxes: `(N, 4)` float32, x1, y1, x2, y2 in pixels of the image.
        scores: `(N,)` float32, falling.
        labels: `(N,)` int64, indices of classes, of objects or segments.
        names: Their names.
        masks: `(N, H, W)` bool.
        segments: `(H, W)` int32, the number of each pixel's segment, from 1 on; 0 for none.
        label_map: `(H, W)`, the class of each pixel.
        features: Maps `(C, H_i, W_i)` of a backbone or neck.
    """

    boxes: np.ndarray | None = None
    scores: np.ndarray | None = None
    labels: np.ndarray | None = None
    names: list[str] = field(default_factory=list)
    masks: np.ndarray | None = None
    segments: np.ndarray | None = None
    label_map: np.ndarray | None = None
    features: list[np.ndarray] | None = None


class ExportedModel:
    """A file written by `swin-mm export`.

    Args:
        path: The `.onnx` file, the `.xml` of OpenVINO with its `.bin` beside it, or the `.pt2`.
        threads: Threads to compute with, for a `.pt2` of the whole process; `None` leaves that to
            the runtime.
        trust: Whether code in the file may run: a `.pt2` is compiled code, and loading it runs it.

    Attributes:
        metadata: What the file says of itself: `task`, `classes`, `resize`, `size`, `versions`,
            `difference` and others.

    Raises:
        ValueError: The file is not one of `swin-mm export`, or holds code and is not trusted.
    """

    def __init__(
        self, path: str | Path, threads: int | None = None, *, trust: bool = False
    ) -> None:
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no exported model {path}")
        openers = {".onnx": _open_onnx, ".xml": _open_openvino, ".pt2": _open_package}
        if path.suffix not in openers:
            raise ValueError(f"an exported model is an .onnx, .xml or .pt2 file, got {path.name}")
        if path.suffix == ".pt2" and not trust:
            raise ValueError(
                f"{path} holds compiled code, which runs as soon as it is loaded: if you know who "
                "made the file, load it with trust=True (on a command line, --trust)"
            )
        if path.suffix == ".xml" and not path.with_suffix(".bin").is_file():
            raise FileNotFoundError(
                f"{path} has its weights in {path.stem}.bin, which is not there"
            )
        try:
            self._run, text = openers[path.suffix](path, threads)
        except ImportError:
            raise
        except Exception as error:  # each library has its own
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"{path} cannot be loaded, it may be damaged: {reason}") from error
        if not text:
            raise ValueError(f"{path} has no metadata of swin_mm: export it with `swin-mm export`")
        self.metadata: dict[str, Any] = json.loads(text)

    def run(self, images: np.ndarray, size: tuple[int, int] | None = None) -> dict[str, np.ndarray]:
        """Runs the file as it is.

        Args:
            images: `(B, H, W, bands)` uint8, RGB, of the size that the model works at.
            size: Height and width of label maps, for files with an input `size`; by default those
                of the images.

        Returns:
            Its outputs by name; a score of 0 means that there is no detection.

        Raises:
            ValueError: The file does not take images of this kind.
        """
        fixed, bands = self.metadata["size"], self.metadata["bands"]
        if images.ndim != 4 or images.dtype != np.uint8 or images.shape[3] != bands:
            raise ValueError(
                f"images must be (B, H, W, {bands}) uint8, got {images.shape} {images.dtype}"
            )
        if fixed and list(images.shape[1:3]) != fixed:
            raise ValueError(f"the file is for images of {fixed}, got {images.shape[1:3]}")
        if min(images.shape[1:3]) < self.metadata["min_side"]:
            raise ValueError(
                f"sides must be at least {self.metadata['min_side']}, got {images.shape[1:3]}"
            )
        batch = self.metadata.get("batch")
        if batch and len(images) != batch:
            raise ValueError(f"the file is for {batch} images at a time, got {len(images)}")
        outputs = self._run(self.feed(images, size))
        return dict(zip(self.metadata["outputs"], outputs, strict=True))

    def feed(
        self, images: np.ndarray, size: tuple[int, int] | None = None
    ) -> dict[str, np.ndarray]:
        """The file's inputs by name."""
        inputs = {"image": images}
        if "size" in self.metadata["inputs"]:
            inputs["size"] = np.array(size or images.shape[1:3], np.int64)
        return inputs

    def predict(
        self, image: str | Path | Image.Image | np.ndarray, score_thr: float = 0.3
    ) -> Found:
        """Predicts one image.

        Args:
            image: A file, a picture of Pillow, or an array `(H, W, bands)` uint8, RGB.
            score_thr: Detections below this score are left out.

        Returns:
            What was found, in pixels of the image.
        """
        pixels = read_image(image, self.metadata.get("turn", True))
        height, width = pixels.shape[:2]
        images, (inner_h, inner_w) = self.prepare(pixels)
        outputs = self.run(images, (height, width))
        if "label_map" in outputs:
            label_map = outputs["label_map"][0]
            if self.metadata["size"]:
                label_map = label_map[:inner_h, :inner_w]
            return Found(label_map=resize_nearest(label_map, height, width))
        if "mask_logits" in outputs:
            return self.finish(outputs, (inner_h, inner_w), (height, width), score_thr)
        if "boxes" not in outputs:
            return Found(features=[outputs[name][0] for name in self.metadata["outputs"]])
        factors = np.array([inner_w / width, inner_h / height] * 2, np.float32)
        return self._detections(outputs, factors, (height, width), score_thr)

    def prepare(self, pixels: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
        """Resizes and pads an image `(H, W, bands)` to the size that the model works at.

        Returns:
            `(B, H', W', bands)`, the image as often as the file takes images at a time (once if it
            takes any number), and the size of the image in it.
        """
        resized = self._fit(pixels)
        height, width = resized.shape[:2]
        if size := self.metadata["size"]:
            resized = self._pad(resized, size)
        images = resized[None].repeat(self.metadata.get("batch") or 1, axis=0)
        return images, (height, width)

    def finish(
        self,
        outputs: Mapping[str, np.ndarray],
        inner: tuple[int, int],
        shape: tuple[int, int],
        score_thr: float = 0.0,
    ) -> Found:
        """Makes objects or segments of masks of whole images.

        Args:
            outputs: With `mask_logits`, of one image.
            inner: Height and width of the image in the file's input.
            shape: Of the image itself.
            score_thr: Objects below this score are left out.
        """
        if self.metadata.get("panoptic"):
            return self._merge(outputs, inner, shape)
        kept = []
        for logits, score, label in zip(
            *(outputs[name][0] for name in ("mask_logits", "scores", "labels")), strict=True
        ):
            if score <= 0 or score < score_thr:  # what follows only lowers it
                continue
            whole = self._stretch_mask(logits, inner, shape)
            mask = whole > 0
            rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
            if len(rows):
                score *= (1 / (1 + np.exp(-whole[mask]))).mean()
                box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
                kept.append((box, score, label, mask))
        kept = sorted((one for one in kept if one[1] >= score_thr), key=lambda one: -one[1])
        boxes, scores, found, masks = zip(*kept, strict=True) if kept else ((),) * 4
        labels = np.array(found, np.int64)
        return Found(
            np.array(boxes, np.float32).reshape(-1, 4),
            np.array(scores, np.float32),
            labels,
            self._names(labels),
            np.array(masks, bool).reshape(-1, *shape),
        )

    def _merge(
        self, outputs: Mapping[str, np.ndarray], inner: tuple[int, int], shape: tuple[int, int]
    ) -> Found:
        """Gives each pixel to one mask, as mmdet's `MaskFormerFusionHead` does."""
        rule, things = self.metadata["panoptic"], 0
        scores, labels = outputs["scores"][0], outputs["labels"][0]
        kept = np.flatnonzero((labels < len(self.metadata["classes"])) & (scores > rule["score"]))
        masks = [self._stretch_mask(outputs["mask_logits"][0, i], inner, shape) for i in kept]
        # By the sigmoid, as `tanh` has it without overflow.
        shares = [s * (1 + np.tanh(0.5 * m)) for s, m in zip(scores[kept], masks, strict=True)]
        owner = np.argmax(shares or np.zeros((1, *shape)), axis=0)
        found: dict[tuple[int, int], np.ndarray] = {}  # by object, 0 for stuff, and class
        for number, label in enumerate(labels[kept].tolist()):
            mask, whole = owner == number, masks[number] >= 0
            if not mask.any() or not whole.any() or mask.sum() / whole.sum() < rule["share"]:
                continue
            things += label < rule["things"]
            key = (things if label < rule["things"] else 0, label)
            mask = mask & whole if rule["own_pixels"] else mask
            if mask.any():
                found[key] = np.logical_or(found.get(key, False), mask)
        segments = np.zeros(shape, np.int32)
        for number, key in enumerate(sorted(found), start=1):
            segments[found[key]] = number
        classes = np.array([label for _, label in sorted(found)], np.int64)
        return Found(labels=classes, names=self._names(classes), segments=segments)

    def _stretch_mask(
        self, logits: np.ndarray, inner: tuple[int, int], shape: tuple[int, int]
    ) -> np.ndarray:
        whole = _stretch(logits, *self.metadata["mask_frame"])
        return _stretch(whole[: inner[0], : inner[1]], *shape)

    def _names(self, labels: np.ndarray) -> list[str]:
        return [self.metadata["classes"][label] for label in labels]

    def _detections(
        self,
        outputs: Mapping[str, np.ndarray],
        factors: np.ndarray,
        shape: tuple[int, int],
        score_thr: float,
    ) -> Found:
        scores = outputs["scores"][0]
        keep = (scores > 0) & (scores >= score_thr)
        boxes = outputs["boxes"][0][keep] / factors
        if self.metadata["size"]:  # the file knows nothing of the padding
            boxes = np.minimum(boxes, np.array([shape[1], shape[0]] * 2, np.float32))
        labels = outputs["labels"][0][keep]
        masks = None
        if "masks" in outputs:
            threshold = self.metadata["mask_threshold"]
            masks = paste_masks(outputs["masks"][0][keep], boxes, shape, threshold)
        return Found(boxes, scores[keep], labels, self._names(labels), masks)

    def _fit(self, pixels: np.ndarray) -> np.ndarray:
        """Resizes an image as the model's test data was, and into a file's fixed size."""
        height, width = pixels.shape[:2]
        rule, size = self.metadata["resize"], self.metadata["size"]
        new_w, new_h = width, height
        if rule and "scale" in rule and not rule["keep_ratio"]:
            new_w, new_h = rule["scale"]
        elif rule:
            factor_w, factor_h = (
                rule.get("factor")
                or [min(of(rule["scale"]) / of(height, width) for of in (max, min))] * 2
            )
            new_w, new_h = int(width * factor_w + 0.5), int(height * factor_h + 0.5)
        if size and (new_h > size[0] or new_w > size[1] or not rule):
            factor = min(size[0] / height, size[1] / width)
            new_w = min(int(width * factor + 0.5), size[1])
            new_h = min(int(height * factor + 0.5), size[0])
        return resize_bilinear(pixels, max(new_h, 1), max(new_w, 1))

    def _pad(self, pixels: np.ndarray, size: Sequence[int]) -> np.ndarray:
        out = np.empty((*size, pixels.shape[2]), np.uint8)
        out[:] = self.metadata["padding"]
        out[: pixels.shape[0], : pixels.shape[1]] = pixels
        return out


def _open_onnx(path: Path, threads: int | None) -> tuple[Run, str | None]:
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError("an .onnx file needs onnxruntime: pip install onnxruntime") from error

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        str(path), options, providers=onnxruntime.get_available_providers()
    )
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    return lambda inputs: session.run(None, inputs), text


def _open_openvino(path: Path, threads: int | None) -> tuple[Run, str | None]:
    try:
        import openvino
    except ImportError as error:
        raise ImportError("an .xml file needs OpenVINO: pip install openvino") from error

    model = openvino.Core().read_model(str(path))
    text = model.get_rt_info(METADATA_KEY).astype(str) if model.has_rt_info(METADATA_KEY) else None
    settings: dict[str, Any] = {}
    if text and json.loads(text)["precision"] != "half":
        # By default OpenVINO computes in bfloat16 where the processor can.
        settings["INFERENCE_PRECISION_HINT"] = "f32"
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    compiled = openvino.compile_model(model, "CPU", settings)
    return lambda inputs: list(compiled(inputs).values()), text


def _open_package(path: Path, threads: int | None) -> tuple[Run, str | None]:
    try:
        import torch
        import torchvision  # noqa: F401  its operators
    except ImportError as error:
        raise ImportError("a .pt2 file needs PyTorch: pip install torch torchvision") from error

    with ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(METADATA_RECORD)]
        text = archive.read(names[0]).decode() if names else None
    if text is None:
        return lambda inputs: [], None  # nothing of it is run
    if threads:
        torch.set_num_threads(threads)
    model = torch._inductor.aoti_load_package(str(path))

    def run(inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        found = model(*map(torch.from_numpy, inputs.values()))
        return [t.numpy() for t in ([found] if isinstance(found, torch.Tensor) else found)]

    return run, text


def read_image(image: str | Path | Image.Image | np.ndarray, turn: bool = True) -> np.ndarray:
    """An image as an array `(H, W, bands)` uint8; files and pictures come out in RGB.

    Args:
        image: A file, a picture of Pillow, or such an array, which stays as it is.
        turn: Whether files and pictures are turned as EXIF says.

    Raises:
        ValueError: An array is not of this kind, or a picture has more than 16 bits.
    """
    if isinstance(image, str | Path):
        with Image.open(image) as picture:
            return read_image(picture, turn)
    if isinstance(image, Image.Image):
        picture = ImageOps.exif_transpose(image) if turn else image
        if picture.mode[0] not in "IF":
            return np.asarray(picture.convert("RGB"))
        values = np.asarray(picture)  # grey of 16 bits, which Pillow would cut off at 255
        if picture.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise ValueError(f"an image must have 8 or 16 bits, got Pillow's mode {picture.mode}")
        return np.repeat((values >> 8).astype(np.uint8)[..., None], 3, axis=2)
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3:
        kind = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image)
        raise ValueError(f"an image must be a file, a picture or (H, W, bands) uint8, got {kind}")
    return image


def resize_bilinear(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes `(H, W, bands)` uint8 as OpenCV's `INTER_LINEAR` does.

    Pillow's filters average when they make an image smaller; models were trained without that.
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    # OpenCV's fixed point: weights of 11 bits, and sums that lose 4 and then 16 of them.
    top, bottom, row_weight = _neighbours(pixels.shape[0], height)
    left, right, column_weight = _neighbours(pixels.shape[1], width)
    weight = column_weight[:, None]
    rows = np.arange(pixels.shape[0])
    wide = pixels[rows].astype(np.int64)
    wide = wide[:, left] * (2048 - weight) + wide[:, right] * weight  # (H, width, bands)
    weight = row_weight[:, None, None]
    upper = ((wide[top] >> 4) * (2048 - weight)) >> 16
    lower = ((wide[bottom] >> 4) * weight) >> 16
    return np.clip((upper + lower + 2) >> 2, 0, 255).astype(np.uint8)


def _neighbours(size: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each new pixel the two it lies between, and the weight of the second, of 2048."""
    position = ((np.arange(new) + 0.5) * (size / new) - 0.5).astype(np.float32)
    low = np.floor(position).astype(np.int64)
    weight = np.rint((position - low) * np.float32(2048)).astype(np.int64)
    weight[low < 0] = 0
    weight[low >= size - 1] = 0
    low = low.clip(0, size - 1)
    return low, (low + 1).clip(max=size - 1), weight


def resize_nearest(label_map: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes a label map `(H, W)`."""
    if label_map.shape == (height, width):
        return label_map
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * size / new).astype(int), size - 1)
        for new, size in zip((height, width), label_map.shape, strict=True)
    )
    return label_map[rows[:, None], columns]


def _stretch(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Interpolates `(h, w)` linearly; beyond the outermost centres values stay as they are."""
    rows, columns = (
        _interpolation(0, new, 0, new, old, is_clamped=True)
        for new, old in zip((height, width), values.shape, strict=True)
    )
    return rows @ values @ columns.T


def paste_masks(
    masks: np.ndarray, boxes: np.ndarray, shape: tuple[int, int], threshold: float
) -> np.ndarray:
    """Puts the masks of boxes into an image.

    Args:
        masks: `(N, h, w)`, from 0 to 1.
        boxes: `(N, 4)`, x1, y1, x2, y2 in pixels of the image.
        shape: `(H, W)` of the image.
        threshold: A pixel is of the object where its interpolated value is at least this.

    Returns:
        `(N, H, W)` bool.
    """
    out = np.zeros((len(masks), *shape), bool)
    for mask, (x1, y1, x2, y2), pasted in zip(masks, boxes, out, strict=True):
        first_x, first_y = max(int(np.floor(x1)) - 1, 0), max(int(np.floor(y1)) - 1, 0)
        end_x, end_y = min(int(np.ceil(x2)) + 1, shape[1]), min(int(np.ceil(y2)) + 1, shape[0])
        if x2 <= x1 or y2 <= y1 or end_x <= first_x or end_y <= first_y:
            continue
        rows = _interpolation(first_y, end_y, y1, y2, mask.shape[0])
        columns = _interpolation(first_x, end_x, x1, x2, mask.shape[1])
        pasted[first_y:end_y, first_x:end_x] = rows @ mask @ columns.T >= threshold
    return out


def _interpolation(
    first: int, end: int, start: float, stop: float, cells: int, is_clamped: bool = False
) -> np.ndarray:
    """Linear interpolation of cells at the centres of pixels, `(end - first, cells)`.

    Outside of the outermost cells the values fall to zero, unless they are clamped.
    """
    centre = np.arange(first, end, dtype=np.float32) + np.float32(0.5)
    place = (centre - start) / (stop - start) * cells - np.float32(0.5)
    if is_clamped:
        place = place.clip(0, cells - 1)
    distance = np.abs(place[:, None] - np.arange(cells, dtype=np.float32))
    return np.maximum(1 - distance, 0).astype(np.float32)
