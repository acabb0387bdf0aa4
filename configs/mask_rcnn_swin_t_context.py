"""`mask_rcnn_swin_t` with mixed-context attention: the mean of each window and that of the map.

No published result: the attention is this project's own. It starts from the same ImageNet weights,
which it equals until it is trained.
    measured: not yet trained
Command: `bash tools/dist_train.sh configs/mask_rcnn_swin_t_context.py 8` (8 GPUs, 2 images each)
"""

_base_ = "mask_rcnn_swin_t.py"

model = dict(backbone=dict(context_scales=("window", "global")))
