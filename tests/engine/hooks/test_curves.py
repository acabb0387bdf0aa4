"""Curves over several runs: what is kept of each, and that a picture comes out."""

import json

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from swin_mm.engine.hooks import curves
from swin_mm.engine.hooks.curves import plot_curves, read_history


def write_run(work_dir, name, records, cut=0):
    path = work_dir / name / "vis_data" / "scalars.json"
    path.parent.mkdir(parents=True)
    text = "".join(json.dumps(record) + "\n" for record in records)
    path.write_text(text[: len(text) - cut])


def step(number, loss, epoch=None):
    record = {"loss": loss, "loss_cls": loss / 2, "lr": 0.1, "time": 0.2, "iter": number}
    return {**record, "step": number, **({} if epoch is None else {"epoch": epoch})}


def validation(number, score):
    return {"coco/bbox_mAP": score, "coco/bbox_mAP_l": -1.0, "time": 0.1, "step": number}


def test_resumed_run_replaces_what_the_killed_one_did_beyond_the_checkpoint(tmp_path):
    write_run(
        tmp_path,
        "20260101_080000",
        [step(50, 3, 1), step(100, 2.5, 1), validation(1, 0.1)]
        + [step(150, 2, 2), step(200, 1.8, 2), validation(2, 0.2), step(250, 1.7, 3)],
        cut=10,  # killed while writing the last line
    )
    # Resumed after epoch 1, whose checkpoint was the last to be written.
    write_run(tmp_path, "20260101_090000", [step(150, 1.9, 2), step(200, 1.5, 2)])
    write_run(tmp_path, "20260101_100000", [step(250, 1.2, 3), validation(3, 0.4)])
    history = read_history(tmp_path)
    assert [record["iter"] for record in history.train] == [50, 100, 150, 200, 250]
    assert [record["loss"] for record in history.train] == [3, 2.5, 1.9, 1.5, 1.2]
    assert [record["step"] for record in history.val] == [1, 3]
    assert history.by_epoch


def test_run_from_the_beginning_replaces_all_before_it(tmp_path):
    write_run(tmp_path, "20260101_080000", [step(10, 3), validation(10, 0.1), step(20, 2)])
    write_run(tmp_path, "20260102_080000", [validation(5, 0.3), step(10, 1)])
    history = read_history(tmp_path)
    assert [record["loss"] for record in history.train] == [1]
    assert [record["coco/bbox_mAP"] for record in history.val] == [0.3]
    assert not history.by_epoch


@pytest.mark.parametrize("validations", [[], [validation(1, 0.1), validation(2, 0.7)]], ids=len)
def test_draws_a_picture(tmp_path, validations):
    write_run(tmp_path, "20260101_080000", [step(i, 1 / i, 1) for i in range(1, 9)] + validations)
    plot_curves(tmp_path, tmp_path / "new" / "curves.png")
    picture = np.asarray(Image.open(tmp_path / "new" / "curves.png").convert("RGB"))
    assert picture.shape == (504, 1320, 3)
    # The colour of the first line: the loss on the left, a metric if there is one on the right.
    is_line = (picture == (0x1F, 0x5F, 0x99)).all(-1)
    assert is_line[:, :660].sum() > 300
    assert (is_line[:, 660:].sum() > 300) == bool(validations)


def test_the_legend_tells_the_last_value_of_each_metric(tmp_path):
    close = {"coco/bbox_mAP_50": 0.836, "coco/segm_mAP_50": 0.831}
    validations = [validation(1, 0.1), {**validation(2, 0.571), **close}]
    write_run(tmp_path, "20260101_080000", [step(1, 3, 1), *validations])
    axes = Figure().subplots()
    curves._draw_metrics(axes, read_history(tmp_path))
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["bbox_mAP 0.571", "bbox_mAP_50 0.836", "segm_mAP_50 0.831"]


def test_loss_on_the_validation_data_is_drawn_beside_that_of_training(tmp_path):
    losses = {"val/loss": 2.5, "val/loss_cls": 1.0}
    records = [step(10, 3, 1), {**validation(1, 0.1), **losses}, step(20, 2, 2)]
    write_run(tmp_path, "20260101_080000", [*records, {**validation(2, 0.2), **losses}])
    history = read_history(tmp_path)
    figure = Figure()
    loss_axes, metric_axes = figure.subplots(1, 2)
    curves._draw_losses(loss_axes, history)
    curves._draw_metrics(metric_axes, history)
    (line,) = [line for line in loss_axes.lines if line.get_label() == "val/loss 2.5"]
    assert line.get_xdata().tolist() == [10, 20]
    assert [line.get_label() for line in metric_axes.lines] == ["bbox_mAP 0.2"]


def test_a_run_that_logged_nothing_is_refused(tmp_path):
    write_run(tmp_path, "20260101_080000", [])
    with pytest.raises(ValueError, match="no run in .* has logged a training step"):
        plot_curves(tmp_path, tmp_path / "curves.png")
