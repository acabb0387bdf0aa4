"""The batched cascade of RoI heads against mmdet's: losses, gradients, detections, waits."""

import numpy as np
import pytest
import torch
from roi_head_tools import (
    TEST_CFG,
    assert_same_arguments,
    assert_same_detections,
    assert_same_training,
    build_pair,
    cascade_cfg,
    detections,
    losses_and_gradients,
    make_batch,
    make_maps,
    mask_head,
    train_cfg,
    waits_of_detection,
    waits_of_training,
)

AGNOSTIC = dict(reg_class_agnostic=True, loss_bbox=dict(type="SmoothL1Loss"))
HEADS = {
    "giou": cascade_cfg(),
    "class-agnostic": cascade_cfg(AGNOSTIC),
    "boxes-only": cascade_cfg(mask_head=None, mask_roi_extractor=None),
    "class-agnostic-masks": cascade_cfg(mask_head=mask_head(class_agnostic=True)),
    "without-gts-added": cascade_cfg(
        train_cfg=[
            train_cfg(
                iou,
                sampler=dict(
                    type="RandomSampler", num=30, pos_fraction=0.5, add_gt_as_proposals=False
                ),
            )
            for iou in (0.3, 0.4, 0.5)
        ]
    ),
}
BATCHES = {
    "polygons": make_batch(masks="polygon"),
    "no-gts-in-one": make_batch(counts=(0, 3)),
    "no-gts": make_batch(counts=(0, 0)),
    "no-proposals": make_batch(num_proposals=(0, 0)),
    "nothing-in-one": make_batch(counts=(3, 0), num_proposals=(30, 0)),
    "one-image": make_batch(counts=(5,), num_proposals=(80,)),
}


@pytest.mark.parametrize("name", HEADS)
def test_cascades_learn_as_mmdets(name, fallbacks):
    batch = make_batch(masks=None if name == "boxes-only" else "bitmap")
    losses = assert_same_training(build_pair(HEADS[name]), batch)
    assert all(losses[f"s{stage}.loss_bbox"] > 0 for stage in range(3))
    assert not fallbacks


@pytest.mark.parametrize("name", BATCHES)
def test_batches_are_learnt_from_as_by_mmdets(name, fallbacks):
    losses = assert_same_training(build_pair(cascade_cfg()), BATCHES[name])
    assert "s2.loss_mask" in losses
    assert not fallbacks


def test_nothing_to_learn_from_ends_the_cascade_as_mmdets():
    """Batch norm of no boxes refuses to be trained, so these heads have none."""
    pair = build_pair(cascade_cfg(AGNOSTIC))
    losses = assert_same_training(pair, make_batch(counts=(0, 0), num_proposals=(0, 0)))
    assert [*losses] == ["s0.loss_bbox", "s0.loss_mask"]


@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("name", HEADS)
def test_cascades_detect_as_mmdets(name, rescale, fallbacks):
    found = assert_same_detections(build_pair(HEADS[name]), make_batch(), rescale)
    assert all(3 < len(image) <= 20 for image in found)
    assert not fallbacks


@pytest.mark.parametrize("num_proposals", [(0, 20), (0, 0)])
def test_images_without_proposals_have_no_detections(num_proposals):
    found = assert_same_detections(build_pair(cascade_cfg()), make_batch((4, 3), num_proposals))
    assert len(found[0]) == 0


OTHERS = {
    "scores": (
        cascade_cfg(dict(loss_cls=dict(type="SeesawLoss", num_classes=5))),
        "Seesaw",
    ),
    "last-sampler": (
        cascade_cfg(
            train_cfg=[
                train_cfg(),
                train_cfg(),
                train_cfg(
                    sampler=dict(
                        type="IoUBalancedNegSampler",
                        num=20,
                        pos_fraction=0.25,
                        add_gt_as_proposals=True,
                    )
                ),
            ]
        ),
        "IoUBalancedNegSampler",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_handled_is_left_to_mmdet(name, fallbacks):
    cfg, reason = OTHERS[name]
    results = []
    for head in build_pair(cfg):
        np.random.seed(0)  # noqa: NPY002  (that sampler draws from NumPy)
        torch.manual_seed(0)
        results.append(head.loss(tuple(make_maps()), *make_batch()))
    torch.testing.assert_close(*results)
    assert len(fallbacks) == 1 and reason in fallbacks[0]


def test_what_a_subclass_replaces_is_used(fallbacks):
    head = build_pair(cascade_cfg())[1]
    parent = type(head)

    class Mine(parent):
        def bbox_loss(self, *args):
            found = super().bbox_loss(*args)
            found["loss_bbox"] = {name: 2 * x for name, x in found["loss_bbox"].items()}
            return found

        def _refine_roi(self, *args, **kwargs):
            rois, scores, deltas = super()._refine_roi(*args, **kwargs)
            return rois, [0 * x for x in scores], deltas

    plain, _ = losses_and_gradients(head, make_maps(), make_batch())
    head.__class__ = Mine
    found, _ = losses_and_gradients(head, make_maps(), make_batch())
    torch.testing.assert_close(found["s2.loss_bbox"], 2 * plain["s2.loss_bbox"])
    scores = torch.cat([image.scores for image in detections(head, make_maps(), make_batch())])
    torch.testing.assert_close(scores, torch.full_like(scores, 1 / 6))  # 5 classes, background
    assert [line.split(": ")[1] for line in fallbacks] == [
        "Mine has its own bbox_loss",
        "Mine has its own _refine_roi",
    ]


def test_another_nms_is_left_to_mmdet(fallbacks):
    cfg = cascade_cfg(test_cfg=TEST_CFG | dict(nms=dict(type="soft_nms", iou_threshold=0.5)))
    assert_same_detections(build_pair(cfg), make_batch())
    assert len(fallbacks) == 1 and "NMS" in fallbacks[0]


@pytest.mark.usefixtures("pooling_of_gpus")
def test_waits_do_not_grow_with_images_or_objects():
    _, ours = build_pair(cascade_cfg())
    batches = [make_batch(gts, [40] * len(gts)) for gts in ([2], [6], [2, 2], [6, 6])]
    (count,) = {waits_of_training(ours, batch) for batch in batches}
    # In each stage: counts of samples, of boxes and masks on each level; the choice of samples
    # also counts what is on the host, twice.
    assert count <= 3 * 5


@pytest.mark.usefixtures("pooling_of_gpus")
def test_waits_in_detection():
    _, ours = build_pair(HEADS["boxes-only"])
    # Levels of boxes in each stage, candidates, detections; and two in the NMS of each image.
    assert waits_of_detection(ours, make_batch(masks=None)) <= 3 + 2 + 2 * 2


def test_state_dict_and_arguments_are_mmdets():
    theirs, ours = build_pair(cascade_cfg())
    assert_same_arguments(theirs, ours)
    assert torch.equal(*(head.bbox_head[2].fc_cls.weight for head in (theirs, ours)))
