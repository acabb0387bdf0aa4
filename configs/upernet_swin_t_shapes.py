"""`upernet_swin_t` on the built-in shapes: background and six classes.

No published result; measured: not yet trained. For training from scratch without the pretrained
weights add `--cfg-options model.backbone.init_cfg=None`.
Command: `python tools/train.py configs/upernet_swin_t_shapes.py`
"""

_base_ = [
    "_base_/default_runtime_seg.py",
    "_base_/models/upernet_swin.py",
    "_base_/datasets/shapes_semantic.py",
    "_base_/schedules/adamw_160k.py",
]

num_classes = 7
norm_cfg = dict(type="BN", requires_grad=True)  # one GPU, or none: nothing to synchronise
model = dict(
    data_preprocessor=dict(size={{_base_.crop_size}}),
    decode_head=dict(num_classes=num_classes, norm_cfg=norm_cfg),
    auxiliary_head=dict(num_classes=num_classes, norm_cfg=norm_cfg),
)
batch_size = 16
max_iters = 4_000
train_dataloader = dict(batch_size=batch_size)
optim_wrapper = dict(optimizer=dict(lr=6e-5 * batch_size / 16))
auto_scale_lr = dict(base_batch_size=batch_size)
train_cfg = dict(max_iters=max_iters, val_interval=1_000)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=150),
    dict(type="PolyLR", power=1.0, eta_min=0.0, by_epoch=False, begin=150, end=max_iters),
]
default_hooks = dict(checkpoint=dict(interval=1_000))
