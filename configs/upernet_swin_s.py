"""UPerNet, Swin-S, ADE20K, 160,000 steps at 512x512.

Reproduces `upernet_swin_small_patch4_window7_512x512_160k_ade20k` of
https://github.com/SwinTransformer/Swin-Transformer-Semantic-Segmentation
    published: mIoU 47.64 (49.47 with multi-scale and flip testing), 81M parameters, 1038 GFLOPs
    measured: not yet trained
Command: `bash tools/dist_train.sh configs/upernet_swin_s.py 8` (8 GPUs, 2 images each)
"""

_base_ = "upernet_swin_t.py"

model = dict(
    backbone=dict(
        arch="small",
        init_cfg=dict(
            checkpoint="https://github.com/SwinTransformer/storage/releases/download/v1.0.0/"
            "swin_small_patch4_window7_224.pth"
        ),
    ),
)
