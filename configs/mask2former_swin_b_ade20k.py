"""Mask2Former, Swin-B, pretrained at 384 pixels, ADE20K, 160,000 steps at 640x640.

Reproduces the model for semantic segmentation of ADE20K with this backbone of
https://github.com/facebookresearch/Mask2Former/blob/main/MODEL_ZOO.md
by mmseg's port `mask2former_swin-b-in1k-384x384-pre_8xb2-160k_ade20k-640x640`,
for which mmseg 1.2.2 reports mIoU 52.44.
    published: mIoU 52.4 (53.7 with multi-scale and flip testing)
    measured: not yet trained
Command: `bash tools/dist_train.sh configs/mask2former_swin_b_ade20k.py 8` (8 GPUs, 2 images each)
"""

_base_ = [
    "_base_/default_runtime_seg.py",
    "_base_/models/mask2former_swin_semantic.py",
    "_base_/datasets/ade20k_640_shortest_edge.py",
    "_base_/schedules/mask2former_160k.py",
]

model = dict(
    # Unlike at 512 pixels, test images are not padded.
    data_preprocessor=dict(size={{_base_.crop_size}}, test_cfg=None),
    backbone=dict(
        arch="base",
        window_size=12,
        init_cfg=dict(
            checkpoint="https://github.com/SwinTransformer/storage/releases/download/v1.0.0/"
            "swin_base_patch4_window12_384.pth"
        ),
    ),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
)
train_dataloader = dict(batch_size=2)
default_hooks = dict(checkpoint=dict(interval=5_000))
