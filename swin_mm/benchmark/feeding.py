"""How fast a config's own data loader feeds, by itself, and what each step of the pipeline takes.

Loaders take turns, round by round. In its turn each first gives the batches that its workers had
prepared while others were measured, which do not count.
"""

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch.utils.data import DataLoader

from swin_mm.benchmark.measure import Quantiles, quantiles
from swin_mm.benchmark.profile import Steps
from swin_mm.benchmark.profile_parts import PartClock
from swin_mm.benchmark.training import Batch, build_loader, build_training
from swin_mm.benchmark.whole import take_stock_types
from swin_mm.configs import ConfigError
from swin_mm.datasets.padding import padding_share

MARGIN = 1.3  # how much faster than a step data should come, since neither is steady
STEP_WARM_UP = 1


@dataclass
class Feed:
    """What a loader did.

    Attributes:
        library: Whose steps of the pipeline: swin_mm's, or of the framework alone.
        workers: Processes that load; with 0 the one that trains does.
        batch: Images of a batch.
        seconds: Of a batch, one for each group of as many batches as there are workers, since
            these come in together.
        sizes: Heights and widths of the images of each batch, pixels.
        padding: Share of the pixels of batches that is padding, 0 to 1.
    """

    library: str
    workers: int
    batch: int
    seconds: list[float] = field(default_factory=list)
    sizes: list[list[tuple[int, int]]] = field(default_factory=list)
    padding: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.library}, {self.workers} worker{'s' * (self.workers != 1)}"

    @property
    def rates(self) -> Quantiles:
        """Images per second."""
        return quantiles([self.batch / seconds for seconds in self.seconds])

    @property
    def mean_seconds(self) -> float:
        """Of a batch. Over a training this counts, as slow ones delay it and fast ones wait."""
        return sum(self.seconds) / len(self.seconds)

    @property
    def worker_seconds(self) -> float:
        """Of one worker for an image."""
        return self.mean_seconds * max(self.workers, 1) / self.batch

    def ratio(self, step: float) -> float:
        """How many batches come in the time of a training step."""
        return step / self.mean_seconds

    def workers_needed(self, step: float, margin: float = MARGIN) -> int:
        """Workers that would feed `margin` times what a step of `step` seconds takes."""
        return max(1, math.ceil(margin * self.worker_seconds * self.batch / step))


def feeding_config(cfg: Config, library: str, workers: int | None) -> Config:
    """The config whose train loader is measured.

    Args:
        cfg: Whole config.
        library: `swin_mm`, or the framework, whose own types then stand for ours.
        workers: Processes that load; None leaves the config's number.
    """
    cfg = deepcopy(cfg)
    loader = cfg.train_dataloader
    if library != "swin_mm":
        take_stock_types(loader, library)
    if workers is not None:
        loader.num_workers = workers
    if not loader.get("num_workers"):  # what PyTorch refuses without workers
        loader.persistent_workers = False
        loader.pop("prefetch_factor", None)
    return cfg


def measure_feeds(
    configs: Sequence[tuple[str, Config]],
    rounds: int,
    groups: int,
    *,
    clock: Callable[[], float] = time.perf_counter,
    on_step: Callable[[str], None] = lambda note: None,
) -> list[Feed]:
    """Draws batches from the train loader of each config, alternating.

    Args:
        configs: Names of the libraries, and configs of `feeding_config`.
        rounds: Turns of each loader.
        groups: Times in a turn that as many batches are drawn as there are workers.
        clock: Gives seconds.
        on_step: Told what was done after each turn.

    Returns:
        What each did, in their order.

    Raises:
        ConfigError: The data are not where the config says.
    """
    feeds, batches, waiting = [], [], []
    for library, cfg in configs:
        init_default_scope(cfg.default_scope)
        loader = build_loader(cfg)
        feeds.append(Feed(library, loader.num_workers, cfg.train_dataloader.batch_size))
        batches.append(_draw_forever(loader))
        waiting.append(loader.num_workers * (loader.prefetch_factor or 0))
    for turn in range(rounds):
        first = turn % len(feeds)
        order = [*range(first, len(feeds)), *range(first)]
        for i in order:
            for _ in range(waiting[i] + 1):  # one more, whose workers are at work then
                next(batches[i])
            _take_turn(feeds[i], batches[i], groups, clock)
            on_step(feeds[i].name)
    for feed, (_, cfg) in zip(feeds, configs, strict=True):
        feed.padding = share_of_padding(feed.sizes, cfg.model.get("data_preprocessor") or {})
    return feeds


def _draw_forever(loader: DataLoader) -> Iterator[Batch]:
    while True:
        yield from loader


def _take_turn(
    feed: Feed, batches: Iterator[Batch], groups: int, clock: Callable[[], float]
) -> None:
    size = max(feed.workers, 1)
    for _ in range(groups):
        start = clock()
        drawn = [next(batches) for _ in range(size)]
        feed.seconds.append((clock() - start) / size)
        feed.sizes += [[tuple(image.shape[-2:]) for image in batch["inputs"]] for batch in drawn]


def share_of_padding(
    sizes: Sequence[Sequence[tuple[int, int]]], preprocessor: Mapping[str, Any]
) -> float:
    """Share of the pixels of batches that is padding.

    Args:
        sizes: Heights and widths of the images of each batch.
        preprocessor: The config's `data_preprocessor`, which says what is padded to.

    Returns:
        0 to 1.
    """
    size = preprocessor.get("size")
    if size is None:
        divisor = preprocessor.get("pad_size_divisor") or preprocessor.get("size_divisor") or 1
        return padding_share(sizes, divisor)
    images = [image for batch in sizes for image in batch]
    used = sum(height * width for height, width in images)
    whole = sum(max(h, size[0]) * max(w, size[1]) for h, w in images)
    return 1 - used / whole


def time_steps(cfg: Config, count: int) -> dict[str, float]:
    """What each step of the train pipeline takes, in this process.

    Args:
        cfg: A config of `feeding_config`.
        count: Images, drawn evenly from the data set.

    Returns:
        CPU seconds of an image by the step's name, in their order; empty where the pipeline is not
        the data set's own, as within wrappers.
    """
    init_default_scope(cfg.default_scope)
    dataset = build_loader(feeding_config(cfg, "swin_mm", 0)).dataset
    dataset = getattr(dataset, "dataset", dataset)
    transforms = getattr(getattr(dataset, "pipeline", None), "transforms", ())
    names = _name_steps(transforms)
    seconds = dict.fromkeys(names, 0.0)
    indices = [i * len(dataset) // count for i in range(count)] if names else []
    for i in indices:
        results = dataset.get_data_info(i)
        for name, transform in zip(names, transforms, strict=True):
            start = time.process_time()
            results = transform(results)
            seconds[name] += time.process_time() - start
            if results is None:  # nothing is left of the image: another would be drawn
                break
    return {name: value / count for name, value in seconds.items()}


def _name_steps(transforms: Sequence[object]) -> list[str]:
    """Names of classes; of those that come twice with their place."""
    names = [type(transform).__name__ for transform in transforms]
    return [
        name if names.count(name) == 1 else f"{name} {place}" for place, name in enumerate(names)
    ]


def measure_step(cfg: Config, device: torch.device, steps: int) -> float:
    """Seconds of a training step on the config's own data, without waiting for them.

    Args:
        cfg: Whole config.
        device: Where the model is.
        steps: How many are taken, after one that does not count, each on another batch.
    """
    init_default_scope(cfg.default_scope)
    drawn = list(islice(_draw_forever(build_loader(feeding_config(cfg, "swin_mm", 0))), steps))
    # Preprocessing may write into a batch.
    batches = (deepcopy(batch) for batch in cycle(drawn))
    runner = Steps(*build_training(cfg, device), batches)
    end = (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else (lambda: None)
    runner.run(STEP_WARM_UP, PartClock(end=end))
    return runner.run(steps, PartClock(end=end))


def advise(feed: Feed, step: float, cores: int | None = None) -> str:
    """Says in a line whether a loader keeps up with training, and how many workers would.

    Args:
        feed: What the loader did.
        step: Seconds of a training step.
        cores: Of this machine; by default counted.
    """
    cores = cores or os.cpu_count() or 1
    ratio, needed = feed.ratio(step), feed.workers_needed(step)
    start = f"{feed.name}: data come {ratio:.2f} times as fast as a step of {step * 1e3:.0f} ms"
    if ratio >= MARGIN:
        return f"{start}: the loader keeps up."
    what = "keeps up without a margin" if ratio >= 1 else "is too slow"
    lost = "" if ratio >= 1 else f", a step waits {(feed.mean_seconds - step) * 1e3:.0f} ms"
    cure = f"{needed} workers feed {MARGIN} times what it takes"
    if needed > cores:
        cure += f", on as many cores; here are {cores}"
    return f"{start}: the loader {what}{lost}. {cure[0].upper()}{cure[1:]}."


def use_photos(cfg: Config, folder: str) -> None:
    """Puts the images of `swin_mm.datasets.shapes.photos` in place of a config's data, in place.

    Raises:
        ConfigError: The data set is a wrapper.
    """
    dataset = cfg.train_dataloader.dataset
    if "dataset" in dataset or "datasets" in dataset:
        raise ConfigError(
            f"made images take the place of a plain data set, not of what {dataset.type} wraps"
        )
    dataset.data_root = folder
    if cfg.default_scope == "mmdet":
        dataset.ann_file = "annotations/instances_train.json"
        dataset.data_prefix = dict(img="train/")
    else:
        dataset.type = "BaseSegDataset"
        dataset.pop("ann_file", None)
        # What the step that loads label maps was told, the data set has to be told as well.
        dataset.reduce_zero_label = any(x.get("reduce_zero_label") for x in dataset.pipeline)
        dataset.data_prefix = dict(img_path="train", seg_map_path="semantic/train")
