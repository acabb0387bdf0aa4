"""Mask R-CNN on a small Swin, from scratch on the easy built-in shapes: the quick start.

No published result; measured: see README. Differs from `mask_rcnn_swin_t_shapes` to learn within
minutes on two CPU cores: the model of `_base_/models/mask_rcnn_swin_mini.py`; colours are left as
they are, since in this preset they tell much of the class.
Command: `python tools/train.py configs/mask_rcnn_swin_mini_shapes.py`
"""

_base_ = [
    "_base_/default_runtime.py",
    "_base_/models/mask_rcnn_swin_mini.py",
    "_base_/datasets/shapes_instance.py",
]

data_root = "data/shapes/easy/"
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="swin_mm.PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="Resize", scale_factor=1.0),  # the heads ask for a scale factor
    dict(
        type="PackDetInputs",
        meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
    ),
]
batch_size = 4
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=1,
    dataset=dict(data_root=data_root, pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=4, num_workers=1, dataset=dict(data_root=data_root, pipeline=test_pipeline)
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + "annotations/instances_val.json")
test_evaluator = val_evaluator

max_epochs = 2
train_cfg = dict(type="swin_mm.EpochBasedTrainLoop", max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=60),
    dict(
        type="CosineAnnealingLR",
        begin=0,
        end=max_epochs,
        eta_min=1e-5,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
optim_wrapper = dict(
    type="swin_mm.OptimWrapper",
    constructor="swin_mm.MergedOptimWrapperConstructor",
    optimizer=dict(type="AdamW", lr=1.5e-3, weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=5.0),
    paramwise_cfg=dict(
        custom_keys={"relative_position_bias_table": dict(lr_mult=20.0, decay_mult=0.0)}
    ),
)
auto_scale_lr = dict(enable=False, base_batch_size=batch_size)
default_hooks = dict(logger=dict(interval=25))
