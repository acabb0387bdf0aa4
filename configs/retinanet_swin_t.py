"""RetinaNet, Swin-T, COCO, 12 epochs (1x), multi-scale with crops.

Trained as the official repository trains Mask R-CNN. mmdet's `retinanet_swin-t-p4-w7_fpn_1x_coco`,
for which no result is published, takes SGD at 0.01 and one scale; see
https://github.com/open-mmlab/mmdetection/tree/v3.3.0/configs/swin
    published: none
    measured: not yet trained
Command: `bash tools/dist_train.sh configs/retinanet_swin_t.py 8` (8 GPUs, 2 images each)
"""

_base_ = [
    "_base_/default_runtime.py",
    "_base_/models/retinanet_swin.py",
    "_base_/datasets/coco_detection_ms_crop.py",
    "_base_/schedules/adamw_1x.py",
]
