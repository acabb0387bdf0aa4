"""UPerNet on a small Swin, on the easy built-in shapes: the second half of the quick start.

No published result; measured: see README. Differs from `upernet_swin_t_shapes` to learn within
minutes on two CPU cores: the model of `_base_/models/upernet_swin_mini.py`; the background, four
fifths of all pixels, weighs less in the loss; colours are left as they are, since in this preset
they tell much of the class.
Command: `python tools/train.py configs/upernet_swin_mini_shapes.py`
"""

_base_ = [
    "_base_/default_runtime_seg.py",
    "_base_/models/upernet_swin_mini.py",
    "_base_/datasets/shapes_semantic.py",
]

crop_size = (144, 144)  # the smallest image: the weighted loss takes no padding
loss = dict(class_weight=[0.4] + [1.0] * 6)
model = dict(
    data_preprocessor=dict(size=crop_size),
    decode_head=dict(loss_decode=loss),
    auxiliary_head=dict(loss_decode=loss),
)

data_root = "data/shapes/easy/"
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomCrop", crop_size=crop_size),
    dict(type="RandomFlip", prob=0.5),
    dict(type="swin_mm.PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="PackSegInputs"),
]
tta_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(
        type="TestTimeAug",
        transforms=[
            [dict(type="Resize", scale_factor=r, keep_ratio=True) for r in (0.75, 1.0, 1.25)],
            [dict(type="RandomFlip", prob=p, direction="horizontal") for p in (0.0, 1.0)],
            [dict(type="LoadAnnotations")],
            [dict(type="PackSegInputs")],
        ],
    ),
]
batch_size = 4
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=1,
    dataset=dict(data_root=data_root, pipeline=train_pipeline),
)
val_dataloader = dict(num_workers=1, dataset=dict(data_root=data_root, pipeline=test_pipeline))
test_dataloader = val_dataloader

max_iters = 1000
train_cfg = dict(type="swin_mm.IterBasedTrainLoop", max_iters=max_iters, val_interval=250)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=40),
    dict(type="CosineAnnealingLR", begin=0, end=max_iters, eta_min=1e-5, by_epoch=False),
]
optim_wrapper = dict(
    type="swin_mm.OptimWrapper",
    constructor="swin_mm.MergedOptimWrapperConstructor",
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=5.0),
    paramwise_cfg=dict(
        custom_keys={"relative_position_bias_table": dict(lr_mult=20.0, decay_mult=0.0)}
    ),
)
auto_scale_lr = dict(enable=False, base_batch_size=batch_size)
default_hooks = dict(logger=dict(interval=25), checkpoint=dict(interval=250))
