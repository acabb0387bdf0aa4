"""Heads of RepPoints V2 for tests: small, with numbers that need no random generator."""

import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

WIDTH = 32  # channels, as many as group norms need
CLASSES = 3
SIDE = 384  # of images in pixels: the coarsest level has the nine points that ATSS asks for
STRIDES = (8, 16, 32, 64, 128)
BOXES = [
    [[20.0, 30, 180, 200], [40, 50, 90, 120], [150, 100, 380, 370]],
    [[5.0, 200, 100, 300], [200, 20, 330, 60]],
]
LABELS = [[0, 0, 2], [1, 0]]
TRAIN_CFG = dict(
    init=dict(assigner=dict(type="PointAssigner", scale=4, pos_num=1)),
    refine=dict(assigner=dict(type="ATSSAssigner", topk=9)),
)
TEST_CFG = dict(
    nms_pre=1000, score_thr=0.2, nms=dict(type="nms", iou_threshold=0.6), max_per_img=100
)


def build_head(kind, **changes):
    """A head of the class `kind`, with `changes` of its arguments."""
    sizes = dict(feat_channels=WIDTH, point_feat_channels=WIDTH, corner_dim=WIDTH, stacked_convs=1)
    settings = dict(norm_cfg=dict(type="GN", num_groups=32), **sizes)
    cfgs = dict(train_cfg=ConfigDict(TRAIN_CFG), test_cfg=ConfigDict(TEST_CFG))
    return kind(CLASSES, WIDTH, **{**settings, **cfgs, **changes})


def waves(shape, phase):
    """Numbers from -1 to 1 that look random."""
    count = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return torch.sin(0.013 * count**2 + phase).view(shape).float()


def fill(head):
    """Gives every parameter such numbers, by its name; returns the head."""
    state = head.state_dict()
    names = sorted(n for n, x in state.items() if x.is_floating_point() and "running" not in n)
    for phase, name in enumerate(names):
        x = state[name]
        if x.ndim == 1:
            x.copy_(0.1 * waves(x.shape, phase) + name.endswith("weight"))
        else:
            x.copy_(waves(x.shape, phase) * (2 / x[0].numel()) ** 0.5)
    state["reppoints_cls_out.bias"].fill_(-2)
    # y1, x1, y2 and x2 of a box four cells wide.
    state["reppoints_pts_init_out.bias"][:4] = torch.tensor([-2.0, -2, 2, 2])
    return head


def features(batch=2, side=SIDE):
    """Maps of the neck."""
    sides = [-(-side // stride) for stride in STRIDES]
    return tuple(waves((batch, WIDTH, n, n), 0.5 + i) for i, n in enumerate(sides))


def samples(boxes=BOXES, labels=LABELS, side=SIDE, masks=False):
    """Ground truths of images, the second of which is smaller and padded, but not to its full."""
    found = []
    for i, (box, label) in enumerate(zip(boxes, labels, strict=True)):
        shape = (side - 60 * i, side - 44 * i)
        padded = tuple(-(-n // 32) * 32 for n in shape)
        sample = DetDataSample(
            metainfo=dict(
                img_shape=shape,
                ori_shape=shape,
                pad_shape=padded,
                batch_input_shape=(side, side),
                scale_factor=(1.0, 1.0),
            )
        )
        box = torch.tensor(box).reshape(-1, 4)
        sample.gt_instances = InstanceData(bboxes=box, labels=torch.tensor(label).long())
        sample.ignored_instances = InstanceData(bboxes=box[:0], labels=torch.zeros(0).long())
        if masks:
            sample.gt_instances.masks = draw_masks(box, side)
        found.append(sample)
    return found


def draw_masks(boxes, side=SIDE):
    """Boxes without the upper left sixth of each."""
    masks = torch.zeros(len(boxes), side, side, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
        mask[y1 : (y1 + y2) // 2, x1 : (x1 * 2 + x2) // 3] = 0
    return BitmapMasks(masks.numpy(), side, side)
