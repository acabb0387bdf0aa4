"""`mask_rcnn_swin_t` on the built-in shapes, six classes, at the data's own sizes.

No published result; measured: not yet trained. For training from scratch without the pretrained
weights add `--cfg-options model.backbone.init_cfg=None`.
Command: `python tools/train.py configs/mask_rcnn_swin_t_shapes.py`
"""

_base_ = [
    "_base_/default_runtime.py",
    "_base_/models/mask_rcnn_swin.py",
    "_base_/datasets/shapes_instance.py",
    "_base_/schedules/adamw_1x.py",
]

num_classes = 6
model = dict(
    roi_head=dict(
        bbox_head=dict(num_classes=num_classes),
        mask_head=dict(num_classes=num_classes),
    )
)
# One GPU: the rate of 16 images a step, scaled to the loader's batch.
batch_size = 8
train_dataloader = dict(batch_size=batch_size)
optim_wrapper = dict(optimizer=dict(lr=1e-4 * batch_size / 16))
auto_scale_lr = dict(base_batch_size=batch_size)
