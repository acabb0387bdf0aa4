"""Detection, 72 epochs (6x); the rest as in `adamw_1x`."""

_base_ = "adamw_1x.py"

max_epochs = 72
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    _base_.param_scheduler[0],
    dict(
        _base_.param_scheduler[1],
        end=max_epochs,
        milestones=[max_epochs * 63 // 72, max_epochs * 69 // 72],
    ),
]
