"""Cascade Mask R-CNN with FPN on Swin-T, the official repository's: GIoU, 4conv1fc heads.

mmdet's cascade, our backbone, neck and drop-ins for the heads. Unlike mmdet's, the box heads have
four convolutions with synchronised batch norm and one layer, boxes of each class apart, and learn
decoded boxes.
"""

_base_ = "mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py"

model = dict(
    data_preprocessor=dict(type="swin_mm.DetDataPreprocessor"),
    backbone=dict(
        _delete_=True,
        type="swin_mm.SwinTransformer",
        arch="tiny",
        drop_path_rate=0.2,
        init_cfg=dict(
            type="Pretrained",
            checkpoint="https://github.com/SwinTransformer/storage/releases/download/v1.0.0/"
            "swin_tiny_patch4_window7_224.pth",
        ),
    ),
    neck=dict(type="swin_mm.FPN", in_channels=[96, 192, 384, 768]),
    rpn_head=dict(type="swin_mm.RPNHead"),  # "mmdet.RPNHead" goes back to mmdet's own
    roi_head=dict(
        type="swin_mm.CascadeRoIHead",  # "mmdet.CascadeRoIHead" goes back to mmdet's own
        bbox_head=[
            dict(
                head,
                type="ConvFCBBoxHead",
                num_shared_convs=4,
                num_shared_fcs=1,
                conv_out_channels=256,
                norm_cfg=dict(type="SyncBN", requires_grad=True),
                reg_class_agnostic=False,
                reg_decoded_bbox=True,
                loss_bbox=dict(type="GIoULoss", loss_weight=10.0),
            )
            for head in _base_.model.roi_head.bbox_head
        ],
    ),
)
