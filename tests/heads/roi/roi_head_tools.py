"""RoI heads of mmdet and ours with the same weights, batches for them, and a count of waits."""

import copy

import numpy as np
import torch
from host_reads import Waits
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData

CHANNELS, CLASSES = 8, 5
STRIDES = [4, 8, 16, 32]
SIZES = [(150, 210), (117, 230)]  # of images, inside maps for the larger of both


def roi_extractor(side):
    return dict(
        type="SingleRoIExtractor",
        roi_layer=dict(type="RoIAlign", output_size=side, sampling_ratio=0),
        out_channels=CHANNELS,
        featmap_strides=STRIDES,
        finest_scale=14,  # so that small images have boxes on all levels
    )


def box_head(**changes):
    head = dict(
        type="Shared2FCBBoxHead",
        in_channels=CHANNELS,
        fc_out_channels=16,
        roi_feat_size=5,
        num_classes=CLASSES,
        bbox_coder=dict(type="DeltaXYWHBBoxCoder", target_stds=[0.1, 0.1, 0.2, 0.2]),
        reg_class_agnostic=False,
        loss_cls=dict(type="CrossEntropyLoss"),
        loss_bbox=dict(type="L1Loss"),
    )
    return head | changes


def mask_head(**changes):
    head = dict(
        type="FCNMaskHead",
        num_convs=1,
        in_channels=CHANNELS,
        conv_out_channels=CHANNELS,
        num_classes=CLASSES,
    )
    return head | changes


def train_cfg(iou=0.5, **changes):
    cfg = dict(
        assigner=dict(
            type="MaxIoUAssigner",
            pos_iou_thr=iou,
            neg_iou_thr=iou,
            min_pos_iou=iou,
            match_low_quality=False,
            ignore_iof_thr=-1,
        ),
        sampler=dict(
            type="RandomSampler", num=40, pos_fraction=0.25, neg_pos_ub=-1, add_gt_as_proposals=True
        ),
        mask_size=12,
        pos_weight=-1,
        debug=False,
    )
    return cfg | changes


TEST_CFG = dict(
    score_thr=0.05, nms=dict(type="nms", iou_threshold=0.5), max_per_img=20, mask_thr_binary=0.5
)


def standard_cfg(**changes):
    cfg = dict(
        type="StandardRoIHead",
        bbox_roi_extractor=roi_extractor(5),
        bbox_head=box_head(),
        mask_roi_extractor=roi_extractor(6),
        mask_head=mask_head(),
        train_cfg=train_cfg(),
        test_cfg=TEST_CFG,
    )
    return cfg | changes


def cascade_cfg(heads=None, **changes):
    """Three stages; as in the recipes, boxes of each class apart, and GIoU of decoded boxes."""
    heads = heads or dict(
        type="ConvFCBBoxHead",
        num_shared_convs=1,
        num_shared_fcs=1,
        conv_out_channels=CHANNELS,
        norm_cfg=dict(type="BN"),
        reg_decoded_bbox=True,
        loss_bbox=dict(type="GIoULoss", loss_weight=10.0),
    )
    stds = ([0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067])
    coders = [dict(type="DeltaXYWHBBoxCoder", target_stds=std) for std in stds]
    cfg = dict(
        type="CascadeRoIHead",
        num_stages=3,
        stage_loss_weights=[1, 0.5, 0.25],
        bbox_roi_extractor=roi_extractor(5),
        bbox_head=[box_head(**heads, bbox_coder=coder) for coder in coders],
        mask_roi_extractor=roi_extractor(6),
        mask_head=mask_head(),
        train_cfg=[train_cfg(iou) for iou in (0.5, 0.6, 0.7)],
        test_cfg=TEST_CFG,
    )
    return cfg | changes


def build_pair(cfg):
    """mmdet's head and ours, with the same weights that make many boxes likely."""
    init_default_scope("mmdet")
    torch.manual_seed(0)
    cfg = ConfigDict(cfg)
    theirs = MODELS.build(copy.deepcopy(cfg))
    ours = MODELS.build(copy.deepcopy(cfg | dict(type=f"swin_mm.{cfg.type}")))
    for name, parameter in theirs.named_parameters():
        if "fc_cls" in name:
            parameter.data.normal_(std=2.0)
        elif "fc_reg" in name:
            parameter.data.normal_(std=0.2)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, ours


def make_maps(num_images=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(num_images, CHANNELS, 160 // s, 240 // s, generator=generator)
        .to(memory_format=torch.channels_last)
        .requires_grad_()
        for s in STRIDES
    ]


def make_batch(counts=(4, 3), num_proposals=(60, 45), masks="bitmap", seed=2):
    """Proposals near ground truths and elsewhere, and samples with these ground truths."""
    random = np.random.default_rng(seed)
    proposals, samples = [], []
    for count, number, size in zip(counts, num_proposals, SIZES, strict=False):
        gt_boxes = _draw_boxes(random, count, size)
        near = [random.integers(count, size=number // 2)] if count else []
        boxes = [gt_boxes[i] + random.normal(0, 3, (len(i), 4)) for i in near]
        boxes.append(_draw_boxes(random, number - sum(map(len, boxes)), size))
        boxes = np.concatenate(boxes).astype(np.float32)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        boxes = np.clip(boxes, 0, [size[1], size[0]] * 2).astype(np.float32)
        proposals.append(InstanceData(bboxes=torch.from_numpy(boxes)))
        found = InstanceData(
            bboxes=torch.from_numpy(gt_boxes.astype(np.float32)),
            labels=torch.from_numpy(random.integers(CLASSES, size=count)),
        )
        if masks is not None:
            found.masks = _draw_masks(random, gt_boxes, masks, size)
        sample = DetDataSample(gt_instances=found)
        sample.set_metainfo(
            dict(
                img_shape=size,
                ori_shape=(2 * size[0], size[1]),
                scale_factor=(1.0, 0.5),
                batch_input_shape=(160, 240),
            )
        )
        samples.append(sample)
    return proposals, samples


def _draw_boxes(random, number, size):
    height, width = size
    sides = random.uniform(0.08, 0.6, (number, 2)) * (width, height)
    corners = random.uniform(0, 1, (number, 2)) * ((width, height) - sides)
    return np.concatenate([corners, corners + sides], axis=1)


def _draw_masks(random, boxes, kind, size):
    """Ellipses in the boxes; as polygons, every other object is in two parts."""
    height, width = size
    if kind == "bitmap":
        y, x = np.mgrid[:160, :240] + 0.5  # padded to the batch, as by the data preprocessor
        masks = [
            (x - (a + c) / 2) ** 2 / (c - a) ** 2 + (y - (b + d) / 2) ** 2 / (d - b) ** 2 <= 0.25
            for a, b, c, d in boxes
        ]
        masks = np.array(masks, dtype=np.uint8).reshape(-1, 160, 240)
        return BitmapMasks(masks, 160, 240)
    objects = []
    for i, (a, b, c, d) in enumerate(boxes):
        angles = np.sort(random.uniform(0, 2 * np.pi, 9))
        points = np.stack([np.cos(angles), np.sin(angles)], axis=1) * (c - a, d - b) / 2
        points += ((a + c) / 2, (b + d) / 2)
        triangle = random.uniform((a, b), (c, d), (3, 2))
        objects.append([points.reshape(-1), triangle.reshape(-1)][: 1 + i % 2])
    return PolygonMasks(objects, height, width)


def losses_and_gradients(head, maps, batch, seed=3):
    """The losses, and by name the gradients of every parameter and map."""
    proposals, samples = copy.deepcopy(batch)
    for leaf in (*head.parameters(), *maps):
        leaf.grad = None
    torch.manual_seed(seed)
    losses = head.loss(tuple(maps), proposals, samples)
    total = sum(value.sum() for name, value in losses.items() if "loss" in name)
    total.backward()
    named = [*head.named_parameters(), *((f"map {i}", x) for i, x in enumerate(maps))]
    return losses, {name: leaf.grad for name, leaf in named}


def waits_of_training(head, batch):
    with Waits() as waits:
        losses_and_gradients(head, make_maps(len(batch[1])), batch)
    return waits.count


def waits_of_detection(head, batch):
    with Waits() as waits:
        detections(head, make_maps(len(batch[1])), batch)
    return waits.count


def assert_same_arguments(theirs, ours):
    assert [*ours.state_dict()] == [*theirs.state_dict()]
    assert type(ours).__init__ is type(theirs).__init__


def assert_same_training(pair, batch, maps=None):
    """Losses and gradients of both heads are the same, and so are the random numbers drawn."""
    maps = maps or make_maps(len(batch[1]))
    theirs, ours = pair
    expected, expected_grads = losses_and_gradients(theirs, maps, batch)
    drawn = torch.get_rng_state()
    found, grads = losses_and_gradients(ours, maps, batch)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert list(found) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-5, atol=1e-7, msg=lambda m, n=name: f"{n}: {m}"
        )
    for name, value in expected_grads.items():
        if value is None:
            assert grads[name] is None, name
            continue
        scale = value.abs().max().item()
        torch.testing.assert_close(
            grads[name],
            value,
            rtol=1e-5,
            atol=1e-5 * scale + 1e-9,
            msg=lambda m, n=name: f"{n}: {m}",
        )
    return expected


def detections(head, maps, batch, rescale=True):
    proposals, samples = copy.deepcopy(batch)
    head.eval()
    with torch.no_grad():
        return head.predict(tuple(maps), proposals, samples, rescale=rescale)


def assert_same_detections(pair, batch, rescale=True, maps=None):
    maps = maps or make_maps(len(batch[1]))
    expected, found = (detections(head, maps, batch, rescale) for head in pair)
    for a, b in zip(found, expected, strict=True):
        assert [*a.keys()] == [*b.keys()]
        for key, value in b.items():
            if value.is_floating_point():
                # A CPU's pooling rounds otherwise than mmdet's.
                torch.testing.assert_close(a[key], value, rtol=1e-5, atol=1e-4)
            elif key == "masks":
                assert (a[key] != value).sum() <= 1e-5 * value.numel()
            else:
                assert torch.equal(a[key], value), key
            assert a[key].dtype == value.dtype
    return expected
