"""UPerNet, Swin-B, ADE20K, 160,000 steps at 512x512.

Reproduces `upernet_swin_base_patch4_window7_512x512_160k_ade20k` of
https://github.com/SwinTransformer/Swin-Transformer-Semantic-Segmentation
    published: mIoU 48.13 (49.72 with multi-scale and flip testing), 121M parameters, 1188 GFLOPs
    measured: not yet trained
Command: `bash tools/dist_train.sh configs/upernet_swin_b.py 8` (8 GPUs, 2 images each)
"""

_base_ = "upernet_swin_t.py"

model = dict(
    backbone=dict(
        arch="base",
        init_cfg=dict(
            checkpoint="https://github.com/SwinTransformer/storage/releases/download/v1.0.0/"
            "swin_base_patch4_window7_224.pth"
        ),
    ),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
)
