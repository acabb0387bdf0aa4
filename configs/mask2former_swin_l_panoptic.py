"""Mask2Former, Swin-L, panoptic segmentation, COCO, 100 epochs, large-scale jitter.

Reproduces the model for panoptic segmentation with this backbone of
https://github.com/facebookresearch/Mask2Former/blob/main/MODEL_ZOO.md
by mmdet's port `mask2former_swin-l-p4-w12-384-in21k_16xb1-lsj-100e_coco-panoptic`,
for which mmdet 3.3.0 reports PQ 57.6, box AP 52.2, mask AP 48.5.
    published: PQ 57.8, mask AP 48.6, 216M parameters (https://arxiv.org/abs/2112.01527)
    measured: not yet trained
Command: `bash tools/dist_train.sh configs/mask2former_swin_l_panoptic.py 16`
(16 GPUs, 1 image each)
"""

_base_ = [
    "_base_/plugin.py",
    "mmdet::mask2former/mask2former_swin-l-p4-w12-384-in21k_16xb1-lsj-100e_coco-panoptic.py",
]

default_hooks = _base_.swin_mm_hooks
train_cfg = dict(type="swin_mm.IterBasedTrainLoop")
val_evaluator = [
    _base_.val_evaluator[0],
    dict(_base_.val_evaluator[1], type="swin_mm.CocoMetric"),
]
test_evaluator = val_evaluator
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
