"""Mask2Former, Swin-B, panoptic segmentation, COCO, 50 epochs, large-scale jitter.

Reproduces the model for panoptic segmentation with this backbone of
https://github.com/facebookresearch/Mask2Former/blob/main/MODEL_ZOO.md
by mmdet's port `mask2former_swin-b-p4-w12-384_8xb2-lsj-50e_coco-panoptic`,
for which mmdet 3.3.0 reports PQ 55.1, box AP 48.2, mask AP 44.9.
    published: PQ 55.1, mask AP 45.2, 107M parameters (https://arxiv.org/abs/2112.01527)
    measured: not yet trained
Command: `bash tools/dist_train.sh configs/mask2former_swin_b_panoptic.py 8`
(8 GPUs, 2 images each)
"""

_base_ = [
    "_base_/plugin.py",
    "mmdet::mask2former/mask2former_swin-b-p4-w12-384_8xb2-lsj-50e_coco-panoptic.py",
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
