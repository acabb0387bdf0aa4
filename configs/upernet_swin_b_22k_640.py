"""UPerNet, Swin-B, pretrained on ImageNet-22K, ADE20K, 160,000 steps at 640x640.

Reproduces the row of Swin-B with ImageNet-22K weights in the segmentation table of
https://github.com/microsoft/Swin-Transformer
The table does not tell the window. Counted as it counts, with linear layers on padding too, windows
of 7 come to 1839 GFLOPs and those of 12 to 1891: hence 7, and weights of 224 pixels.
    published: mIoU 50.04 (51.66 with multi-scale and flip testing), 121M parameters, 1841 GFLOPs
    measured: not yet trained
Command: `bash tools/dist_train.sh configs/upernet_swin_b_22k_640.py 8` (8 GPUs, 2 images each)
"""

_base_ = [
    "_base_/default_runtime_seg.py",
    "_base_/models/upernet_swin.py",
    "_base_/datasets/ade20k_640.py",
    "_base_/schedules/adamw_160k.py",
]

model = dict(
    data_preprocessor=dict(size={{_base_.crop_size}}),
    backbone=dict(
        arch="base",
        init_cfg=dict(
            checkpoint="https://github.com/SwinTransformer/storage/releases/download/v1.0.0/"
            "swin_base_patch4_window7_224_22k.pth"
        ),
    ),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
)
train_dataloader = dict(batch_size=2)
