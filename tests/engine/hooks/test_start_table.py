"""Parts of the start table that the toy task does not reach; the whole is in tests/cli."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import IterBasedTrainLoop
from torch import nn

from swin_mm.checkpoint.report import LoadReport
from swin_mm.engine.hooks import start_table


def test_layers_with_rates_of_their_own():
    groups = [
        {"params": [nn.Parameter(torch.zeros(1))], "lr": rate, "weight_decay": decay}
        for rate, decay in [(1e-4, 0.05), (1e-6, 0.0), (1e-5, 0.05)]
    ]
    runner = SimpleNamespace(auto_scale_lr=None)
    expected = "1e-06 to 0.0001 (AdamW, weight decay 0 and 0.05)"
    assert start_table._describe_optimizer(runner, torch.optim.AdamW(groups)) == expected


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        (None, ""),
        (dict(enable=False, base_batch_size=12), ""),
        (dict(base_batch_size=16), ", made for a batch of 16; --auto-scale-lr scales it"),
        (dict(enable=True, base_batch_size=16), ", scaled from a batch of 16 images"),
        (
            dict(enable=False, base_batch_size=12, scaled_from="0.1, for 16 images"),
            ", scaled from 0.1, for 16 images",
        ),
    ],
)
def test_for_how_many_images_a_rate_is(scaling, expected):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.5)
    runner = SimpleNamespace(
        optim_wrapper=OptimWrapper(optimizer, accumulative_counts=3),
        auto_scale_lr=scaling,
        train_dataloader=SimpleNamespace(batch_size=4),
    )
    text = start_table._describe_optimizer(runner, optimizer)
    assert text == f"0.5 (SGD{expected}, weight decay 0)"


def test_several_optimizers_have_a_line_each():
    model = nn.Linear(1, 1)
    logged = []
    wrappers = {
        name: OptimWrapper(torch.optim.SGD(model.parameters(), rate), accumulative_counts=2)
        for name, rate in [("first", 0.5), ("second", 0.25)]
    }
    runner = SimpleNamespace(
        model=model,
        optim_wrapper=OptimWrapperDict(**wrappers),
        auto_scale_lr=None,
        train_dataloader=SimpleNamespace(batch_size=4),
        train_loop=IterBasedTrainLoop.__new__(IterBasedTrainLoop),
        val_loop=None,
        work_dir="here",
        logger=SimpleNamespace(info=logged.append),
        _resume=False,
        _load_from=None,
    )
    runner.train_loop._max_iters = 7
    hook = start_table.StartTableHook()
    hook.data = SimpleNamespace(rows=list)
    hook.before_train(runner)
    rows = [[cell.strip() for cell in line.split("│")] for line in logged[0].splitlines()]
    rows = [row[1:3] if len(row) == 4 else row for row in rows]
    rates = [row[1] for row in rows if row[0] == "learning rate"]
    assert rates == ["0.5 (SGD, weight decay 0)", "0.25 (SGD, weight decay 0)"]
    assert ["batch", "8 = 4 images x 2 accumulated steps"] in rows


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, "float32"),
        ({"loss_scaler": 1, "cast_dtype": None}, "float16 where it is safe, float32 elsewhere"),
        (
            {"loss_scaler": 1, "cast_dtype": torch.bfloat16},
            "bfloat16 where it is safe, float32 elsewhere",
        ),
        (
            {"loss_scaler": 1, "cast_dtype": None, "compute_dtype": torch.float32},
            "float32 (mixed precision was asked for, and needs a GPU)",
        ),
    ],
    ids=["plain", "float16", "bfloat16", "no GPU"],
)
def test_precision_is_named(attributes, expected):
    assert start_table._describe_precision(SimpleNamespace(**attributes)) == expected


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(1000, 1000, bias=False)
        self.head = nn.Linear(1000, 500, bias=False)


def test_parameters_and_frozen_ones():
    model = Detector()
    assert start_table._describe_model(model) == [
        ("model", "Detector on Linear, 1.50 M parameters")
    ]
    model.backbone.requires_grad_(False)
    assert start_table._describe_model(model) == [
        ("model", "Detector on Linear, 1.50 M parameters, 1.00 M of them frozen")
    ]


def test_where_weights_come_from():
    model = Detector()
    model.backbone.load_report = None
    runner = SimpleNamespace(model=model, _resume=False, _load_from=None, _has_loaded=False)
    assert start_table._describe_start(runner) == [
        ("weights", "backbone: initialised from scratch")
    ]
    report = LoadReport("backbone", "Microsoft", 173, 173, dropped=("head.weight",), file="a.pth")
    model.backbone.load_report = report
    runner._load_from = "b.pth"
    assert start_table._describe_start(runner) == [
        ("loaded", "b.pth"),
        ("weights", str(report)),
    ]


@pytest.mark.parametrize("columns", [60, 200])
def test_table_fits_the_terminal(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    rows = [("work folder", "/a/" + "long/" * 30), ("classes", "cat [red]")]
    text = start_table._draw("training", rows)
    lines = text.strip().splitlines()
    assert lines[0] == "training"
    assert {len(line) for line in lines[1:]} == {min(columns, 80)}
    # Text is taken as it is: rich would read the brackets as a colour.
    assert "cat [red]" in text
