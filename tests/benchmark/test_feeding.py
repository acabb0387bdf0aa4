"""How fast loaders feed: what is timed, what follows from it, and real pipelines."""

import itertools

import pytest
import torch
from mmengine.config import ConfigDict
from test_profile import small_config

from swin_mm.benchmark import feeding
from swin_mm.benchmark.feeding import (
    Feed,
    advise,
    feeding_config,
    measure_feeds,
    measure_step,
    share_of_padding,
    time_steps,
    use_photos,
)
from swin_mm.benchmark.training import build_loader
from swin_mm.cli.config import load_config
from swin_mm.configs import ConfigError
from swin_mm.datasets.shapes import write_shapes
from swin_mm.datasets.shapes.photos import write_photos


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Loader:
    """Takes a given time for each batch, by a clock of its own, and counts them."""

    prefetch_factor = 2

    def __init__(self, clock: Clock, seconds: list[float], workers: int) -> None:
        self.clock, self.seconds, self.num_workers = clock, seconds, workers
        self.drawn = 0

    def __iter__(self):
        for seconds in self.seconds:
            self.clock.now += seconds
            self.drawn += 1
            yield dict(inputs=[torch.zeros(3, 30, 64), torch.zeros(3, 64, 64)])


def config(batch: int = 2) -> ConfigDict:
    return ConfigDict(
        default_scope="mmdet",
        model=dict(data_preprocessor=dict(pad_size_divisor=32)),
        train_dataloader=dict(batch_size=batch),
    )


def test_groups_are_timed_after_what_was_prepared(monkeypatch):
    clock = Clock()
    # With two workers and two batches of each in waiting, five do not count.
    seconds = [9.0] * 5 + [0.1, 0.3, 0.2, 0.6]
    loaders = [Loader(clock, seconds, workers=2), Loader(clock, [9.0] * 5 + [1.0] * 4, workers=2)]
    left = iter(loaders)
    monkeypatch.setattr(feeding, "build_loader", lambda cfg: next(left))
    turns = []
    feeds = measure_feeds(
        [("swin_mm", config()), ("mmdet", config())], 2, 2, clock=clock, on_step=turns.append
    )
    ours, theirs = feeds
    assert ours.seconds == pytest.approx([0.2, 0.4] * 2)
    assert theirs.seconds == pytest.approx([1.0] * 4)
    assert [loader.drawn for loader in loaders] == [18, 18]  # an epoch in each turn
    assert turns == [f"{name}, 2 workers" for name in ("swin_mm", "mmdet", "mmdet", "swin_mm")]
    assert ours.sizes == [[(30, 64), (64, 64)]] * 8
    assert ours.padding == pytest.approx(34 * 64 / (2 * 64 * 64))


FEED = Feed("swin_mm", workers=2, batch=4, seconds=[0.1, 0.2, 0.3, 0.2])


def test_rates_and_what_they_mean_for_a_step():
    assert FEED.rates.median == pytest.approx(20.0)
    assert (FEED.rates.low, FEED.rates.high) == pytest.approx((17.333, 28.0), abs=1e-3)
    assert FEED.mean_seconds == pytest.approx(0.2)
    assert FEED.worker_seconds == pytest.approx(0.1)  # of two workers that take 0.2 for 4 images
    assert FEED.ratio(0.3) == pytest.approx(1.5)
    # A step of 0.1 s with 4 images at 0.1 s of a worker each, 1.3 times: 5.2.
    assert FEED.workers_needed(0.1) == 6
    assert FEED.workers_needed(10.0) == 1
    alone = Feed("swin_mm", workers=0, batch=4, seconds=[0.2])
    assert alone.worker_seconds == pytest.approx(0.05) and alone.name == "swin_mm, 0 workers"


@pytest.mark.parametrize(
    ("step", "cores", "text"),
    [
        (0.3, 2, "1.50 times as fast as a step of 300 ms: the loader keeps up."),
        (
            0.22,
            8,
            "1.10 times as fast as a step of 220 ms: the loader keeps up without a margin. "
            "3 workers feed 1.3 times what it takes.",
        ),
        (
            0.1,
            2,
            "0.50 times as fast as a step of 100 ms: the loader is too slow, a step waits 100 ms. "
            "6 workers feed 1.3 times what it takes, on as many cores; here are 2.",
        ),
    ],
    ids=["enough", "barely", "too slow"],
)
def test_advice(step, cores, text):
    assert advise(FEED, step, cores) == f"swin_mm, 2 workers: data come {text}"


@pytest.mark.parametrize(
    ("preprocessor", "share"),
    [
        (dict(pad_size_divisor=8), 1 - 2 * 16 * 24 / (2 * 16 * 24)),
        (dict(size_divisor=32), 1 - 2 * 16 * 24 / (2 * 32 * 32)),
        (dict(size=(20, 20)), 1 - 16 * 24 / (20 * 24)),
        (dict(), 0.0),
    ],
    ids=["mmdet", "mmseg's divisor", "mmseg's size", "none"],
)
def test_padding_is_that_of_the_preprocessor(preprocessor, share):
    assert share_of_padding([[(16, 24), (16, 24)]], preprocessor) == pytest.approx(share)


def test_the_stock_pipeline_and_the_number_of_workers():
    cfg = load_config("mask_rcnn_swin_t")
    kinds = [step.type for step in cfg.train_dataloader.dataset.pipeline]
    stock = feeding_config(cfg, "mmdet", 3).train_dataloader
    assert [step.type for step in stock.dataset.pipeline] == [
        kind.replace("swin_mm.", "mmdet.") for kind in kinds
    ]
    assert stock.num_workers == 3 and stock.persistent_workers
    alone = feeding_config(cfg, "swin_mm", 0).train_dataloader
    assert alone.num_workers == 0 and not alone.persistent_workers
    assert [step.type for step in cfg.train_dataloader.dataset.pipeline] == kinds
    assert feeding_config(cfg, "swin_mm", None).train_dataloader == cfg.train_dataloader


@pytest.mark.parametrize("name", ["mask_rcnn_swin_t", "upernet_swin_t"])
def test_made_images_feed_recipes_of_public_data(name, tmp_path):
    cfg = load_config(name)
    use_photos(cfg, f"{tmp_path}/")
    classes = ["person", "bicycle", "car"]  # of COCO's
    write_photos(tmp_path, 4, classes)
    batch = next(iter(build_loader(feeding_config(cfg, "swin_mm", 0))))
    assert len(batch["inputs"]) == cfg.train_dataloader.batch_size
    for image, sample in zip(batch["inputs"], batch["data_samples"], strict=True):
        if name.startswith("mask"):
            assert len(sample.gt_instances.masks) == len(sample.gt_instances.labels) > 0
        else:
            assert sample.gt_sem_seg.shape == image.shape[1:]
            assert sample.gt_sem_seg.data.unique().numel() > 1


def test_a_wrapped_data_set_takes_no_made_images():
    cfg = load_config("mask_rcnn_swin_t")
    cfg.train_dataloader.dataset = dict(type="RepeatDataset", times=2, dataset=dict(type="X"))
    with pytest.raises(ConfigError, match="not of what RepeatDataset wraps"):
        use_photos(cfg, "x/")


@pytest.fixture
def shapes_config(tmp_path):
    cfg = small_config("mask_rcnn_swin_mini_shapes")
    cfg.train_dataloader.dataset.data_root = f"{write_shapes(tmp_path, 'tiny')}/"
    return cfg


def test_steps_of_the_pipeline_are_timed(shapes_config, monkeypatch):
    monkeypatch.setattr(feeding.time, "process_time", itertools.count().__next__)
    found = time_steps(shapes_config, 5)
    steps = shapes_config.train_dataloader.dataset.pipeline
    kinds = [step.type.removeprefix("swin_mm.") for step in steps]
    assert list(found) == kinds and set(found.values()) == {1.0}


def test_steps_that_come_twice_have_their_place():
    assert feeding._name_steps([3, "a", 4]) == ["int 0", "str", "int 2"]


def test_a_step_is_measured_on_the_data(shapes_config):
    assert 0 < measure_step(shapes_config, torch.device("cpu"), 2) < 60
