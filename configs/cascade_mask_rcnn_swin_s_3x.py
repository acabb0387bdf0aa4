"""Cascade Mask R-CNN, Swin-S, COCO, 36 epochs (3x), multi-scale with crops.

Reproduces `cascade_mask_rcnn_swin_small_patch4_window7_mstrain_480-800_giou_4conv1f_adamw_3x_coco`
of https://github.com/SwinTransformer/Swin-Transformer-Object-Detection
    published: box AP 51.9, mask AP 45.0, 107M parameters, 838 GFLOPs
    measured: not yet trained
Command: `bash tools/dist_train.sh configs/cascade_mask_rcnn_swin_s_3x.py 8`
(8 GPUs, 2 images each)
"""

_base_ = "cascade_mask_rcnn_swin_t_3x.py"

model = dict(
    backbone=dict(
        arch="small",
        init_cfg=dict(
            checkpoint="https://github.com/SwinTransformer/storage/releases/download/v1.0.0/"
            "swin_small_patch4_window7_224.pth"
        ),
    ),
)
