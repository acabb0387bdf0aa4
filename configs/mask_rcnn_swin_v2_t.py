"""Mask R-CNN, Swin V2-T, COCO, 12 epochs (1x), multi-scale with crops.

No recipe of this detector on V2 is published: all but the backbone is as in
`mask_rcnn_swin_t`. The weights are those of
https://github.com/microsoft/Swin-Transformer/blob/main/MODELHUB.md
    published: none
    measured: not yet trained
Command: `bash tools/dist_train.sh configs/mask_rcnn_swin_v2_t.py 8` (8 GPUs, 2 images each)
"""

_base_ = "mask_rcnn_swin_t.py"

model = dict(
    backbone=dict(
        type="swin_mm.SwinTransformerV2",
        window_size=8,
        init_cfg=dict(
            checkpoint="https://github.com/SwinTransformer/storage/releases/download/v2.0.0/"
            "swinv2_tiny_patch4_window8_256.pth"
        ),
    ),
)
