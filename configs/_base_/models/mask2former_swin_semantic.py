"""Mask2Former for semantic segmentation on Swin-T: mmseg's head, our backbone."""

# mmseg has no file of the model alone: of its recipe, the model is taken.
_base_ = "mmseg::mask2former/mask2former_swin-t_8xb2-160k_ade20k-512x512.py"
[_base_.pop(key) for key in {*_base_} - {"model"}]

model = dict(
    type="swin_mm.EncoderDecoder",
    data_preprocessor=dict(type="swin_mm.SegDataPreProcessor"),
    backbone=dict(
        _delete_=True,
        type="swin_mm.SwinTransformer",
        arch="tiny",
        drop_path_rate=0.3,
        init_cfg=dict(
            type="Pretrained",
            checkpoint="https://github.com/SwinTransformer/storage/releases/download/v1.0.0/"
            "swin_tiny_patch4_window7_224.pth",
        ),
    ),
)
