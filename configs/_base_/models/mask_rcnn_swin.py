"""Mask R-CNN with FPN on Swin-T: mmdet's model, our backbone, neck and drop-ins for the heads.

`rpn_head=dict(type="mmdet.RPNHead")` and `roi_head=dict(type="mmdet.StandardRoIHead")` go back to
mmdet's own.
"""

_base_ = "mmdet::_base_/models/mask-rcnn_r50_fpn.py"

model = dict(
    data_preprocessor=dict(type="swin_mm.DetDataPreprocessor"),
    backbone=dict(
        _delete_=True,
        type="swin_mm.SwinTransformer",
        arch="tiny",
        drop_path_rate=0.1,
        init_cfg=dict(
            type="Pretrained",
            checkpoint="https://github.com/SwinTransformer/storage/releases/download/v1.0.0/"
            "swin_tiny_patch4_window7_224.pth",
        ),
    ),
    neck=dict(type="swin_mm.FPN", in_channels=[96, 192, 384, 768]),
    rpn_head=dict(type="swin_mm.RPNHead"),
    roi_head=dict(type="swin_mm.StandardRoIHead"),
)
