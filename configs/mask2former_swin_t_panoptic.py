"""Mask2Former, Swin-T, panoptic segmentation, COCO, 50 epochs, large-scale jitter.

Reproduces the model for panoptic segmentation with this backbone of
https://github.com/facebookresearch/Mask2Former/blob/main/MODEL_ZOO.md
by mmdet's port `mask2former_swin-t-p4-w7-224_8xb2-lsj-50e_coco-panoptic`,
for which mmdet 3.3.0 reports PQ 53.4, box AP 46.3, mask AP 43.4.
    published: PQ 53.2, mask AP 43.3, 47M parameters (https://arxiv.org/abs/2112.01527)
    measured: not yet trained
Command: `bash tools/dist_train.sh configs/mask2former_swin_t_panoptic.py 8`
(8 GPUs, 2 images each)
"""

_base_ = [
    "_base_/plugin.py",
    "mmdet::mask2former/mask2former_swin-t-p4-w7-224_8xb2-lsj-50e_coco-panoptic.py",
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
