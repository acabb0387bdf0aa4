"""UPerNet, Swin-T, ADE20K, 160,000 steps at 512x512.

Reproduces `upernet_swin_tiny_patch4_window7_512x512_160k_ade20k` of
https://github.com/SwinTransformer/Swin-Transformer-Semantic-Segmentation
    published: mIoU 44.51 (45.81 with multi-scale and flip testing), 60M parameters, 945 GFLOPs
    measured: not yet trained
Command: `bash tools/dist_train.sh configs/upernet_swin_t.py 8` (8 GPUs, 2 images each)
Multi-scale and flip testing: `python tools/test.py configs/upernet_swin_t.py CHECKPOINT --tta`
"""

_base_ = [
    "_base_/default_runtime_seg.py",
    "_base_/models/upernet_swin.py",
    "_base_/datasets/ade20k.py",
    "_base_/schedules/adamw_160k.py",
]

model = dict(data_preprocessor=dict(size={{_base_.crop_size}}))
train_dataloader = dict(batch_size=2)
