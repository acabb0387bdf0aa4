"""Early stopping and the best checkpoint go by one metric."""

from itertools import count

import pytest
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS
from mmengine.runner import Runner
from toy_task import write_toy_config

from swin_mm.engine import CheckpointHook, EarlyStoppingHook

NAMES = count()


@METRICS.register_module()
class Scripted(BaseMetric):
    """Metrics that are given from the start, one dict for each validation."""

    def __init__(self, script):
        super().__init__()
        self.script = iter(script)

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return dict(next(self.script))


def train(folder, script, best="auto", resume=False, **hook):
    cfg = Config.fromfile(write_toy_config(folder))
    cfg.train_cfg.max_epochs = len(script) if not resume else 2 * len(script)
    cfg.val_evaluator = dict(type="Scripted", script=script)
    cfg.default_hooks.checkpoint.update(save_best=best, max_keep_ckpts=1)
    if hook:
        cfg.custom_hooks = [dict(type="swin_mm.EarlyStoppingHook", **hook)]
    cfg.update(work_dir=str(folder / "work"), experiment_name=f"early_{next(NAMES)}", resume=resume)
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def best_of(folder):
    return sorted(path.name for path in (folder / "work").glob("best_*"))


def values(name, *numbers):
    return [{name: number} for number in numbers]


def test_stops_after_patience_and_keeps_the_best_alone(tmp_path):
    script = values("coco/bbox_mAP", 0.1, 0.31, 0.3, 0.305, 0.9)
    assert train(tmp_path, script, patience=2).epoch == 4
    assert best_of(tmp_path) == ["best_coco_bbox_mAP_epoch_2.pth"]


@pytest.mark.parametrize("name", ["mAP", "val/loss"])
def test_a_metric_that_stands_still_stops_training(tmp_path, name):
    assert train(tmp_path, values(name, *[0.5] * 6), best=name, patience=2).epoch == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    "main", ["coco/bbox_mAP", "mIoU", "coco_panoptic/PQ", "mAP", "lvis/bbox_AP"]
)
@pytest.mark.parametrize("best", ["auto", None])
def test_goes_by_the_main_metric_whatever_comes_first(tmp_path, main, best):
    script = [
        {"coco/disc_precision": rising, "aAcc": rising, main: value}
        for rising, value in zip((0.1, 0.2, 0.3, 0.4), (0.5, 0.6, 0.4, 0.4), strict=True)
    ]
    assert train(tmp_path, script, best=best, patience=1).epoch == 3
    assert best_of(tmp_path) == ([f"best_{main.replace('/', '_')}_epoch_2.pth"] if best else [])


def test_small_gains_count(tmp_path):
    # mmengine's own default would take these for a standstill.
    assert train(tmp_path, values("mAP", 0.1, 0.11, 0.12, 0.13), patience=1).epoch == 4


def test_goes_by_the_metric_of_the_best_checkpoint(tmp_path):
    script = [dict(mAP=i / 10, error=error) for i, error in enumerate((5, 3, 4, 4, 1))]
    cfg = dict(save_best="error", rule="less")
    hook = CheckpointHook(**cfg)
    assert hook.rules == ["less"]
    # `error` says nothing of its rule; a loss does.
    script = [dict(mAP=m["mAP"], **{"val/loss": m["error"]}) for m in script]
    assert train(tmp_path, script, best="val/loss", patience=2).epoch == 4
    assert best_of(tmp_path) == ["best_val_loss_epoch_2.pth"]


def test_min_delta_of_a_metric_that_shrinks(tmp_path):
    script = values("val/loss", 3.0, 2.95, 2.93, 1.0)
    runner = train(tmp_path, script, best="val/loss", patience=2, min_delta=0.1)
    assert runner.epoch == 3


def test_without_a_best_checkpoint_the_first_metric_counts(tmp_path):
    script = [dict(mIoU=mean, aAcc=i) for i, mean in enumerate((50, 40, 30, 60))]
    assert train(tmp_path, script, best=None, patience=2).epoch == 3


@pytest.mark.parametrize("name", ["coco_panoptic/PQ", "lvis/bbox_AP", "mFscore", "mIoU"])
def test_auto_knows_the_metrics_of_all_tasks(tmp_path, name):
    train(tmp_path, [{"time_used": 3, name: 1.0}, {"time_used": 2, name: 2.0}])
    assert best_of(tmp_path) == [f"best_{name.replace('/', '_')}_epoch_2.pth"]


def test_auto_without_a_metric_it_knows_trains_on(tmp_path, capsys):
    runner = train(tmp_path, values("speed", 1, 2))
    assert runner.epoch == 2 and best_of(tmp_path) == []
    assert "No best checkpoint is kept: none of ['speed']" in capsys.readouterr().out


def test_auto_remembers_the_best_when_resumed(tmp_path):
    train(tmp_path, values("mAP", 0.1, 0.3))
    assert best_of(tmp_path) == ["best_mAP_epoch_2.pth"]
    train(tmp_path, values("mAP", 0.2, 0.4), resume=True)
    assert best_of(tmp_path) == ["best_mAP_epoch_4.pth"]


def test_rule_of_an_unknown_metric_is_asked_for():
    with pytest.raises(ValueError, match="Cannot infer the rule for speed"):
        EarlyStoppingHook("speed")
    assert EarlyStoppingHook("speed", rule="less").rule == "less"
