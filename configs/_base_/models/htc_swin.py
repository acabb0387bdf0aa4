"""Hybrid Task Cascade with a semantic branch on Swin-B.

mmdet's model, our backbone, neck and drop-ins for the heads.
"""

# mmdet has no file of the model alone: of its recipe, the model is taken.
_base_ = "mmdet::htc/htc_r50_fpn_1x_coco.py"
[_base_.pop(key) for key in {*_base_} - {"model"}]

model = dict(
    data_preprocessor=dict(type="swin_mm.DetDataPreprocessor"),
    backbone=dict(
        _delete_=True,
        type="swin_mm.SwinTransformer",
        arch="base",
        drop_path_rate=0.3,
        init_cfg=dict(
            type="Pretrained",
            checkpoint="https://github.com/SwinTransformer/storage/releases/download/v1.0.0/"
            "swin_base_patch4_window7_224_22k.pth",
        ),
    ),
    neck=dict(type="swin_mm.FPN", in_channels=[128, 256, 512, 1024]),
    rpn_head=dict(type="swin_mm.RPNHead"),  # "mmdet.RPNHead" goes back to mmdet's own
    # "mmdet.HybridTaskCascadeRoIHead" goes back to mmdet's own
    roi_head=dict(type="swin_mm.HybridTaskCascadeRoIHead"),
    test_cfg=dict(rcnn=dict(nms=dict(type="soft_nms"))),
)
