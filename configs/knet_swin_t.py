"""K-Net, Swin-T, ADE20K, 80,000 steps at 512x512.

Reproduces `knet-s3_swin-t_upernet_8xb2-adamw-80k_ade20k-512x512` of
https://github.com/open-mmlab/mmsegmentation/blob/v1.2.2/configs/knet
    published: mIoU 45.84 (46.27 with multi-scale and flip testing)
    measured: not yet trained
Command: `bash tools/dist_train.sh configs/knet_swin_t.py 8` (8 GPUs, 2 images each)
"""

_base_ = [
    "_base_/default_runtime_seg.py",
    "_base_/models/knet_swin.py",
    "_base_/datasets/ade20k.py",
    "_base_/schedules/knet_80k.py",
]

model = dict(data_preprocessor=dict(size={{_base_.crop_size}}))
train_dataloader = dict(batch_size=2, num_workers=2)
default_hooks = dict(checkpoint=dict(interval=8_000))
