"""RetinaNet on Swin-T: mmdet's head, our backbone and neck."""

_base_ = "mmdet::_base_/models/retinanet_r50_fpn.py"

model = dict(
    data_preprocessor=dict(type="swin_mm.DetDataPreprocessor"),
    backbone=dict(
        _delete_=True,
        type="swin_mm.SwinTransformer",
        arch="tiny",
        drop_path_rate=0.2,
        out_indices=(1, 2, 3),
        init_cfg=dict(
            type="Pretrained",
            checkpoint="https://github.com/SwinTransformer/storage/releases/download/v1.0.0/"
            "swin_tiny_patch4_window7_224.pth",
        ),
    ),
    neck=dict(type="swin_mm.FPN", in_channels=[192, 384, 768], start_level=0),
)
