"""Sparse R-CNN with 300 proposals on Swin-T: mmdet's heads, our backbone and neck."""

# mmdet has no file of the model alone: of its recipe, the model is taken.
_base_ = "mmdet::sparse_rcnn/sparse-rcnn_r50_fpn_300-proposals_crop-ms-480-800-3x_coco.py"
[_base_.pop(key) for key in {*_base_} - {"model"}]

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
)
