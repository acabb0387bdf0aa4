"""UPerNet on Swin-T: mmseg's heads in less memory, our backbone."""

_base_ = "mmseg::_base_/models/upernet_swin.py"

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
    decode_head=dict(type="swin_mm.UPerHead", num_classes=150),
    auxiliary_head=dict(type="swin_mm.FCNHead", num_classes=150),
)
