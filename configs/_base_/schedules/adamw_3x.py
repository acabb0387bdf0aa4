"""Detection, 36 epochs (3x); the rest as in `adamw_1x`."""

_base_ = "adamw_1x.py"

max_epochs = 36
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    _base_.param_scheduler[0],
    dict(
        _base_.param_scheduler[1],
        end=max_epochs,
        milestones=[max_epochs * 9 // 12, max_epochs * 11 // 12],
    ),
]
