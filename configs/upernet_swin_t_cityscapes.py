"""UPerNet, Swin-T, Cityscapes, 80,000 steps at 512x1024.

The recipe of ADE20K with mmseg's usual crops and steps for this data. Neither
https://github.com/SwinTransformer/Swin-Transformer-Semantic-Segmentation
nor mmseg has a UPerNet with a Swin on Cityscapes.
    published: none
    measured: not yet trained
Command: `bash tools/dist_train.sh configs/upernet_swin_t_cityscapes.py 8` (8 GPUs, 2 images each)
"""

_base_ = [
    "_base_/default_runtime_seg.py",
    "_base_/models/upernet_swin.py",
    "mmseg::_base_/datasets/cityscapes.py",
    "_base_/schedules/adamw_160k.py",
]

num_classes = 19
model = dict(
    data_preprocessor=dict(size={{_base_.crop_size}}),
    decode_head=dict(num_classes=num_classes),
    auxiliary_head=dict(num_classes=num_classes),
)
train_pipeline = [*_base_.train_pipeline[:-1], dict(type="swin_mm.PackSegInputs")]
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=train_pipeline))

max_iters = 80_000
train_cfg = dict(max_iters=max_iters, val_interval=8_000)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type="PolyLR", power=1.0, eta_min=0.0, by_epoch=False, begin=1500, end=max_iters),
]
default_hooks = dict(checkpoint=dict(interval=8_000))
