"""Mask2Former, Swin-T, instance segmentation, COCO, 50 epochs, large-scale jitter.

Reproduces the model for instance segmentation with this backbone of
https://github.com/facebookresearch/Mask2Former/blob/main/MODEL_ZOO.md
by mmdet's port `mask2former_swin-t-p4-w7-224_8xb2-lsj-50e_coco`,
for which mmdet 3.3.0 reports box AP 47.7, mask AP 44.7.
    published: mask AP 45.0, 47M parameters (https://arxiv.org/abs/2112.01527)
    measured: not yet trained
Command: `bash tools/dist_train.sh configs/mask2former_swin_t.py 8` (8 GPUs, 2 images each)
"""

_base_ = [
    "_base_/plugin.py",
    "mmdet::mask2former/mask2former_swin-t-p4-w7-224_8xb2-lsj-50e_coco.py",
]

default_hooks = _base_.swin_mm_hooks
train_cfg = dict(type="swin_mm.IterBasedTrainLoop")
val_evaluator = dict(type="swin_mm.CocoMetric")
test_evaluator = dict(type="swin_mm.CocoMetric")
model = dict(backbone=dict(type="swin_mm.SwinTransformer"))
# mmdet's backbone has `stages` where ours has `layers`.
custom_keys = {
    key.replace("stages", "layers"): value
    for key, value in _base_.optim_wrapper.paramwise_cfg.custom_keys.items()
}
optim_wrapper = dict(
    _base_.swin_mm_optim_wrapper,
    paramwise_cfg=dict(custom_keys=dict(_delete_=True, **custom_keys)),
)
