"""RepPoints with group norm on Swin-T: mmdet's head, our backbone and neck."""

# mmdet has no file of the model alone: of its recipe, the model is taken.
_base_ = "mmdet::reppoints/reppoints-moment_r50_fpn-gn_head-gn_1x_coco.py"
[_base_.pop(key) for key in {*_base_} - {"model"}]

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
