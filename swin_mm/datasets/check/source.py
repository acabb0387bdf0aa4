"""Finds the data sets in a config, and what each would read, without building them."""

import inspect
import os.path
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from mmengine.config import Config
from mmengine.fileio import list_from_file
from mmengine.registry import DATASETS, Registry

import swin_mm.datasets.tar_files  # noqa: F401  (for a data_root that begins with tar://)
from swin_mm.configs import bare_type
from swin_mm.datasets.check.summary import DatasetError
from swin_mm.datasets.reader import Reader

Sample = TypeVar("Sample")


@dataclass(frozen=True)
class Source:
    """One data set of a config, without its wrappers.

    Attributes:
        where: Path of its settings in the config, such as `train_dataloader.dataset`.
        settings: Its settings.
        cls: The class they would build.
    """

    where: str
    settings: dict
    cls: type[Any]

    def reads_like(self, base: str) -> bool:
        """Returns whether the class is `base` or reads its annotations as `base` does."""
        bases = [c for c in self.cls.__mro__ if c.__name__ == base]
        return bool(bases) and all(
            getattr(self.cls, method) is getattr(bases[0], method)
            for method in ("load_data_list", "parse_data_info")
        )

    def argument(self, name: str) -> Any:
        """Returns a setting, or the default that the class gives it."""
        if name in self.settings:
            return self.settings[name]
        cls: Any
        for cls in self.cls.__mro__:  # a subclass passes on what it does not name itself
            parameter = inspect.signature(cls.__init__).parameters.get(name)
            if parameter is not None and parameter.default is not inspect.Parameter.empty:
                return parameter.default
        return None

    def classes(self) -> tuple[str, ...]:
        """Returns the class names: the config's, else those that belong to the data set's class."""
        metainfo = self.settings.get("metainfo") or {}
        if "CLASSES" in metainfo:
            raise DatasetError(
                f"{self.where}.metainfo has CLASSES, which nothing reads since mmdet 3: "
                "write classes in lower case"
            )
        classes = metainfo.get("classes", getattr(self.cls, "METAINFO", {}).get("classes", ()))
        if isinstance(classes, str):
            if not os.path.isfile(classes):
                raise DatasetError(
                    f"{self.where}.metainfo.classes is the text {classes!r}, neither a tuple of "
                    f"names nor a file of names: write ({classes!r},)"
                )
            classes = list_from_file(classes)
        return tuple(classes)

    def subset(self, samples: list[Sample]) -> list[Sample]:
        """Returns the samples that `indices` leaves, of all after filtering."""
        indices = self.argument("indices")
        if indices is None:
            return samples
        try:
            if isinstance(indices, int):
                chosen = samples[:indices] if indices >= 0 else samples[indices:]
            else:
                chosen = [samples[index] for index in indices]
        except IndexError:
            raise DatasetError(
                f"{self.where}.indices names samples that are not there: there are {len(samples)}, "
                "counted from 0"
            ) from None
        if samples and not chosen:
            raise DatasetError(f"{self.where}.indices={indices} leaves no sample")
        return chosen

    def path(self, name: str) -> str:
        """Returns a file or folder of the settings joined to `data_root`."""
        return os.path.join(self.settings.get("data_root") or "", name)

    def ann_file(self) -> str:
        """Returns the path of the annotation file; that of `data_root` where none is named."""
        return self.path(self.argument("ann_file") or "")

    def prefix(self, key: str) -> str:
        """Returns the folder that `data_prefix` gives for a key."""
        prefixes = self.settings.get("data_prefix") or {}
        if key not in prefixes:
            raise DatasetError(
                f"{self.where}.data_prefix needs the key {key!r}, got {sorted(prefixes)}: "
                f"--cfg-options {self.where}.data_prefix.{key}=FOLDER"
            )
        return self.path(prefixes[key])

    def is_remote(self) -> bool:
        """Returns whether files come from a server, where looking at each would take too long."""
        return bool(self.settings.get("backend_args")) or "://" in self.path("")

    def reader(self) -> Reader:
        """Returns what loads the images, by the pipeline."""
        return Reader.of(self.settings.get("pipeline"))

    def loads_maps(self) -> bool:
        """Returns whether label maps are loaded, alone or beside objects."""
        with_seg = self.transform("LoadAnnotations").get("with_seg")
        is_panoptic = bool(self.transform("LoadPanopticAnnotations"))
        return bool(with_seg) or is_panoptic or self.reads_like("BaseSegDataset")

    def transform(self, name: str) -> dict:
        """Returns the settings of a transform in the pipeline; empty where it is not there."""
        steps = self.settings.get("pipeline") or ()
        return next((step for step in steps if bare_type(step) == name), {})


def find_sources(cfg: Config, loader: str) -> list[Source]:
    """Lists the data sets of a loader, such as `train_dataloader`: several of a concatenation."""
    settings = (cfg.get(loader) or {}).get("dataset")
    if settings is None:
        return []
    with DATASETS.switch_scope_and_registry(cfg.get("default_scope", "mmdet")) as registry:
        return list(_unwrap(settings, f"{loader}.dataset", registry))


def _unwrap(settings: dict, where: str, registry: Registry) -> Iterator[Source]:
    if isinstance(settings.get("dataset"), dict):
        yield from _unwrap(settings["dataset"], f"{where}.dataset", registry)
    elif "datasets" in settings:
        for index, part in enumerate(settings["datasets"]):
            yield from _unwrap(part, f"{where}.datasets.{index}", registry)
    else:
        kind = settings.get("type")
        cls = kind if isinstance(kind, type) else registry.get(kind) if kind else None
        if cls is None:
            raise DatasetError(
                f"{where}.type={kind!r} is not a registered data set: correct the name, or add the "
                "module that registers it to custom_imports"
            )
        yield Source(where, settings, cls)
