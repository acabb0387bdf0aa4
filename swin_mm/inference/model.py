"""Trained models from Python: `swin_mm.load(...).predict(...)`."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.model import BaseTTAModel
from mmengine.registry import DATASETS, MODELS, DefaultScope
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import load_state_dict
from mmengine.structures import BaseDataElement
from torch import nn

from swin_mm.checkpoint import CheckpointError
from swin_mm.checkpoint.files.sharded import is_sharded
from swin_mm.checkpoint.published import Weights, find_weights, resolve_weights
from swin_mm.configs import (
    ConfigError,
    find_config,
    find_scope,
    innermost_dataset,
    packaged_configs,
)
from swin_mm.configs import read_config as read_config_file
from swin_mm.datasets.picture import choose_palette
from swin_mm.engine.hooks.exact_weights import watch_weights
from swin_mm.export.runtime import SUFFIXES
from swin_mm.heads.ops.encode_masks import encode_masks
from swin_mm.inference.pipeline import Pipeline, without_annotations
from swin_mm.inference.prediction import Prediction
from swin_mm.inference.predictor import PredictOptions, Predictor
from swin_mm.inference.run_length import RunLengthMasks
from swin_mm.inference.sources import PredictError, Source, is_single, open_sources
from swin_mm.inference.views import use_sliced_inference, use_test_time_augmentation
from swin_mm.structures import Content, Objects, Run, read_segments

if TYPE_CHECKING:
    from swin_mm.export.write import ExportResult

CHECKPOINT_SUFFIXES = (".pth", ".pt", ".safetensors")
# mmengine's default scope, and what it patches to read configs, are of the whole process.
_BUILDING = threading.RLock()


def load(
    model: str | Path | Config,
    checkpoint: str | Path | None = None,
    device: str | None = None,
    cfg_options: Mapping[str, Any] | None = None,
    trust: bool = False,
) -> Predictor:
    """Loads a trained detector or segmentor.

    Args:
        model: The name of a recipe or of weights that are published (`swin-mm weights`); a file of
            `swin-mm export` (`.onnx`, `.xml`, `.pt2`); a checkpoint written by training, file or
            folder, which carries its config as data; or a config (a path, the name of a recipe, or
            a `Config`).
        checkpoint: The trained weights of a config: path, address, or name of published ones.
        device: Such as `cpu` or `cuda:0`; by default a GPU if there is one.
        cfg_options: Settings of the config that change, by dotted key.
        trust: Whether a `.pt2` may run the code that it holds; nothing else runs code of a file.

    Returns:
        The model, in evaluation mode.

    Raises:
        ConfigError: There is no such config, or no checkpoint was given for one.
        CheckpointError: The checkpoint is of another model, carries no config, or is not known.
        ValueError: A `.pt2` is not trusted, or an exported file is not one of `swin-mm export`.
    """
    if isinstance(model, str | Path) and Path(model).suffix in SUFFIXES.values():
        from swin_mm.inference.exported import Exported

        return Exported(model, trust)
    weights: Any = checkpoint
    with _BUILDING:
        if isinstance(model, Config):
            cfg = deepcopy(model)
        elif checkpoint is None and _is_checkpoint(Path(model).expanduser()):
            weights = CheckpointLoader.load_checkpoint(str(model), map_location="cpu")
            cfg = read_carried_config(weights, model)
        elif checkpoint is None and not Path(model).exists():
            published = _find_published(str(model))
            weights, cfg = published.address, read_config_file(find_config(published.config))
        else:
            cfg = read_config_file(find_config(str(model)))
    if weights is None:
        raise ConfigError(f"{model} is a config: give its trained weights too, as checkpoint=...")
    if cfg_options:
        cfg.merge_from_dict(dict(cfg_options))
    if not isinstance(weights, Mapping):
        weights = resolve_weights(str(weights))
    return Model(cfg, weights, device)


def _is_checkpoint(path: Path) -> bool:
    return path.suffix in CHECKPOINT_SUFFIXES or is_sharded(path)


def _find_published(name: str) -> Weights:
    try:
        return find_weights(name)
    except CheckpointError:
        if name.removesuffix(".py") not in packaged_configs():
            raise
        raise ConfigError(
            f"no weights are published for {name}: give trained ones, as "
            f"swin_mm.load({name!r}, CHECKPOINT)"
        ) from None


@contextmanager
def _default_scope(scope: str) -> Iterator[None]:
    """Makes a scope mmengine's default, for one thread at a time."""
    with _BUILDING, DefaultScope.overwrite_default_scope(scope):
        yield


def read_carried_config(checkpoint: Mapping[str, Any], file: str | Path) -> Config:
    """Reads the config that training wrote into a checkpoint, as data: nothing of it is executed.

    `file` is the checkpoint's name, for messages.
    """
    from swin_mm.checkpoint.config_text import parse_config_text

    meta = checkpoint.get("meta") or {}
    text = meta.get("cfg") or meta.get("config")
    if not text:
        raise CheckpointError(
            f"{file} carries no config: give one, as swin_mm.load(CONFIG, CHECKPOINT)"
        )
    try:
        return Config(parse_config_text(text))
    except ValueError as error:
        raise CheckpointError(f"{file}: {error}") from error


class Model(Predictor):
    """A trained detector or segmentor, for images without annotations.

    Args:
        cfg: Its config. Images go through the pipeline of its test data.
        checkpoint: File or address of the trained weights, or what was loaded from it.
        device: Such as `cpu` or `cuda:0`; by default a GPU if there is one.

    Attributes:
        cfg: The config.
        module: The network.

    Raises:
        CheckpointError: The checkpoint is of another model.
        ConfigError: The config has no test data, or nothing names the classes.
    """

    def __init__(self, cfg: Config, checkpoint: str | Mapping, device: str | None = None) -> None:
        if cfg.get("test_dataloader") is None:
            name = cfg.filename or "the config"
            raise ConfigError(f"{name} has no test_dataloader, whose pipeline images go through")
        self.cfg, self.scope = cfg, find_scope(cfg)
        # For this call alone: another model may be of another package.
        with _default_scope(self.scope):
            module, self.meta = load_model(cfg, checkpoint)
        self.module: nn.Module = module.to(choose_device(device)).eval()
        self.classes: Sequence[str] = self.meta["classes"]
        self.palette = choose_palette(self.meta)
        self._pipelines: dict[tuple, Pipeline] = {}

    def export(self, path: str | Path, format: str | None = None, **options: Any) -> "ExportResult":
        """Writes the model as a file that runs without PyTorch, and checks it beside the model.

        Args:
            path: The file: `.onnx`, `.xml` for OpenVINO, or `.pt2` for AOTInductor.
            format: `onnx`, `openvino` or `torch`; by default what the path ends in.
            options: `size=(H, W)` and `batch=N` fix what is free otherwise; `part="neck"` or
                `"backbone"` gives their feature maps alone; `half=True` or `int8=IMAGES` (a folder
                or what else `predict` takes, to calibrate on) lowers the precision and measures
                the first `val_images=200` images of the config's validation data before and after;
                `check=False` leaves out the check; `image` is a picture for it, instead of drawn
                ones.

        Returns:
            The path, the file's metadata and how far it is from the model.

        Raises:
            ExportError: The model cannot be exported, or the file differs from it.
        """
        from swin_mm.inference.export import export

        return export(self.module, self.cfg, self.classes, self.palette, path, format, **options)

    def prepare(self, source: Any) -> tuple[np.ndarray, dict[str, Any]]:
        """Loads one image as `predict` does.

        Returns:
            The picture, `(H, W, 3)`, uint8, RGB, and the batch that the network takes: `inputs`
            `(1, C, H, W)` and `data_samples`.

        Raises:
            PredictError: The source is not one image.
        """
        if not is_single(source):
            raise PredictError(f"one image is wanted, got {source}")
        pipeline = self._pipeline(tta=False, sliced=False)
        results = pipeline.load(next(iter(open_sources(source))))
        data = pseudo_collate([pipeline.rest({**results})])
        preprocess: Any = self.module.data_preprocessor
        return pipeline.picture(results["img"]), preprocess(data, False)

    def _predict_all(self, source: Any, options: PredictOptions) -> Iterator[Prediction]:
        pipeline = self._pipeline(options.tta, options.sliced)
        return self._predict_in(pipeline, open_sources(source), options)

    def _predict_in(
        self, pipeline: Pipeline, sources: Iterator[Source], options: PredictOptions
    ) -> Iterator[Prediction]:
        while batch := list(islice(sources, options.batch_size)):
            loaded = [pipeline.load(one) for one in batch]
            samples = pipeline.run(loaded, options.progress)
            for one, results, sample in zip(batch, loaded, samples, strict=True):
                content = read_content(sample, options.score_thr, len(self.classes))
                image = pipeline.picture(results["img"])
                yield Prediction(content, image, self.classes, self.palette, one.name)

    def _pipeline(self, tta: bool, sliced: bool | Mapping[str, Any]) -> Pipeline:
        settings = dict(sliced) if isinstance(sliced, Mapping) else {}
        is_sliced = bool(sliced) or isinstance(sliced, Mapping)
        key = (tta, is_sliced, *sorted(settings.items()))
        if key not in self._pipelines:
            self._pipelines[key] = self._make_pipeline(tta, is_sliced, settings)
        return self._pipelines[key]

    def _make_pipeline(self, tta: bool, sliced: bool, settings: dict[str, Any]) -> Pipeline:
        cfg, module = deepcopy(self.cfg), self.module
        if tta:
            use_test_time_augmentation(cfg)
        if sliced:
            use_sliced_inference(cfg, **settings)
        dataset = innermost_dataset(cfg.test_dataloader.dataset)
        with _default_scope(self.scope):
            if tta or sliced:
                module = MODELS.build(ConfigDict(cfg.model, module=module))
            return Pipeline(without_annotations(dataset.pipeline), module)


def load_model(cfg: Config, checkpoint: str | Mapping) -> tuple[nn.Module, dict[str, Any]]:
    """Builds the model of a config, whose scope is the default one, and loads its weights.

    Returns:
        The model, on the CPU, and what is known of its data, such as `classes`.

    Raises:
        CheckpointError: The checkpoint is of another model.
        ConfigError: Neither checkpoint nor config names the classes.
    """
    model = MODELS.build(cfg.model)
    dataset = innermost_dataset(cfg.test_dataloader.dataset)
    content: Any = checkpoint
    if not isinstance(checkpoint, Mapping):
        content = CheckpointLoader.load_checkpoint(checkpoint, map_location="cpu")
    _load_weights(model, content)
    return model, _find_meta(content, dataset)


def read_content(sample: BaseDataElement, score_thr: float, num_classes: int) -> Content:
    """Takes over what was predicted in an image, without detections below `score_thr`.

    Of `pred_panoptic_seg`, `pred_instances` and `pred_sem_seg` in the sample, the first is taken.
    """
    if "pred_panoptic_seg" in sample:
        return read_segments(sample.pred_panoptic_seg, num_classes)
    if "pred_instances" in sample and "bboxes" in sample.pred_instances:
        found = sample.pred_instances
        found = found[found.scores >= score_thr]
        found = found[found.scores.argsort(descending=True, stable=True)].cpu()
        return Objects(
            found.labels.numpy(),
            found.bboxes.numpy(),
            found.scores.numpy(),
            _to_runs(found.masks) if "masks" in found else None,
        )
    if "pred_sem_seg" in sample:
        return sample.pred_sem_seg.data.squeeze(0).cpu().numpy()  # (H, W)
    raise ConfigError(
        f"the model predicts neither boxes nor a label map, but {', '.join(sample.keys())}"
    )


def _to_runs(masks: RunLengthMasks | torch.Tensor) -> list[Run]:
    if isinstance(masks, RunLengthMasks):
        return masks.runs
    return encode_masks(masks)


def _load_weights(model: nn.Module, checkpoint: dict[str, Any]) -> None:
    """Loads all of a model's weights."""
    handle = watch_weights(model, checkpoint)
    try:
        inner = model.module if isinstance(model, BaseTTAModel) else model
        load_state_dict(inner, checkpoint.get("state_dict", checkpoint), strict=False)
    finally:
        handle.remove()


def _find_meta(checkpoint: Mapping[str, Any], dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Finds what the classes are: those of the training, else those of the config's test data."""
    meta = checkpoint.get("meta", {})
    trained_on = meta.get("dataset_meta") or {}
    if "CLASSES" in meta:  # of mmdet 2 and mmseg 0
        trained_on = {"classes": meta["CLASSES"], "palette": meta.get("PALETTE")}
    with DATASETS.switch_scope_and_registry(None) as registry:  # that of the default scope
        known = getattr(registry.get(dataset["type"]), "METAINFO", {})
    found = trained_on or {**known, **dataset.get("metainfo", {})}
    found = {key.lower(): value for key, value in found.items()}
    if not found.get("classes"):
        raise ConfigError(
            "neither the checkpoint nor the config names the classes: set "
            "test_dataloader.dataset.metainfo=dict(classes=(...))"
        )
    return found


def choose_device(name: str | None) -> str:
    """Chooses where to compute: a GPU if there is one, unless a device is named."""
    gpus = torch.cuda.device_count()
    if name is None:
        return "cuda" if gpus else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device {name}: must be such as cpu, cuda or cuda:1") from error
    if device.type == "cuda" and (device.index or 0) >= gpus:
        raise ConfigError(f"device {name}: this machine has {gpus} GPUs that PyTorch can use")
    return name
