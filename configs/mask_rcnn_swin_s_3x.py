"""Mask R-CNN, Swin-S, COCO, 36 epochs (3x), multi-scale with crops.

Reproduces `mask_rcnn_swin_small_patch4_window7_mstrain_480-800_adamw_3x_coco` of
https://github.com/SwinTransformer/Swin-Transformer-Object-Detection
    published: box AP 48.5, mask AP 43.3, 69M parameters, 359 GFLOPs
    measured: not yet trained
Command: `bash tools/dist_train.sh configs/mask_rcnn_swin_s_3x.py 8` (8 GPUs, 2 images each)
"""

_base_ = "mask_rcnn_swin_t_3x.py"

model = dict(
    backbone=dict(
        arch="small",
        init_cfg=dict(
            checkpoint="https://github.com/SwinTransformer/storage/releases/download/v1.0.0/"
            "swin_small_patch4_window7_224.pth"
        ),
    ),
)
