"""The batched standard RoI head against mmdet's: losses, gradients, samples, detections, waits."""

import pytest
import torch
from mmdet.structures.mask import PolygonMasks
from mmengine.structures import InstanceData
from roi_head_tools import (
    TEST_CFG,
    assert_same_arguments,
    assert_same_detections,
    assert_same_training,
    box_head,
    build_pair,
    losses_and_gradients,
    make_batch,
    make_maps,
    mask_head,
    standard_cfg,
    train_cfg,
    waits_of_detection,
    waits_of_training,
)

HEADS = {
    "class-aware": standard_cfg(),
    "class-agnostic": standard_cfg(
        bbox_head=box_head(reg_class_agnostic=True), mask_head=mask_head(class_agnostic=True)
    ),
    "boxes-only": standard_cfg(mask_head=None, mask_roi_extractor=None),
    "decoded": standard_cfg(
        bbox_head=box_head(reg_decoded_bbox=True, loss_bbox=dict(type="GIoULoss"))
    ),
    "shared-features": standard_cfg(mask_roi_extractor=None, train_cfg=train_cfg(mask_size=10)),
    "pos-weight": standard_cfg(train_cfg=train_cfg(pos_weight=2.5)),
    "without-gts-added": standard_cfg(
        train_cfg=train_cfg(
            sampler=dict(
                type="RandomSampler",
                num=30,
                pos_fraction=0.5,
                neg_pos_ub=3,
                add_gt_as_proposals=False,
            )
        )
    ),
    "unclipped": standard_cfg(
        bbox_head=box_head(bbox_coder=dict(type="DeltaXYWHBBoxCoder", clip_border=False))
    ),
    "soft-targets": standard_cfg(train_cfg=train_cfg(soft_mask_target=True)),
}
BATCHES = {
    "bitmaps": make_batch(),
    "polygons": make_batch(masks="polygon"),
    "no-gts-in-one": make_batch(counts=(0, 3)),
    "no-polygons-in-one": make_batch(counts=(3, 0), masks="polygon"),
    "no-gts": make_batch(counts=(0, 0)),
    "no-proposals-in-one": make_batch(num_proposals=(0, 20)),
    "no-proposals": make_batch(num_proposals=(0, 0)),
    "nothing-in-one": make_batch(counts=(3, 0), num_proposals=(30, 0)),
    "one-image": make_batch(counts=(5,), num_proposals=(80,)),
}


@pytest.mark.parametrize("name", HEADS)
def test_heads_learn_as_mmdets(name, fallbacks):
    batch = make_batch(masks=None if name == "boxes-only" else "bitmap")
    losses = assert_same_training(build_pair(HEADS[name]), batch)
    assert losses["loss_bbox"] > 0
    assert not fallbacks


@pytest.mark.parametrize("name", BATCHES)
def test_batches_are_learnt_from_as_by_mmdets(name, fallbacks):
    assert_same_training(build_pair(standard_cfg()), BATCHES[name])
    assert not fallbacks


def test_nothing_to_learn_from_gives_the_losses_of_mmdet():
    batch = make_batch(counts=(0, 0), num_proposals=(0, 0))
    losses = assert_same_training(build_pair(standard_cfg()), batch)
    assert [*losses] == ["loss_bbox", "loss_mask"]


@pytest.mark.parametrize("name", HEADS)
def test_heads_detect_as_mmdets(name, fallbacks):
    found = assert_same_detections(build_pair(HEADS[name]), make_batch())
    assert all(3 < len(image) <= 20 for image in found)
    assert not fallbacks


@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("with_mask", [False, True])
def test_detections_are_rescaled_as_mmdets(with_mask, rescale):
    cfg = standard_cfg() if with_mask else HEADS["boxes-only"]
    assert_same_detections(build_pair(cfg), make_batch(), rescale)


@pytest.mark.parametrize(
    "test_cfg",
    [
        pytest.param(dict(score_thr=0.99999), id="nothing-found"),
        pytest.param(dict(score_thr=0.0, max_per_img=-1), id="all"),
        pytest.param(dict(nms=dict(type="nms", iou_threshold=0.3), max_per_img=7), id="few"),
    ],
)
def test_limits_are_kept_as_mmdets(test_cfg, fallbacks):
    found = assert_same_detections(
        build_pair(standard_cfg(test_cfg=TEST_CFG | test_cfg)), make_batch()
    )
    nothing = [] if any(map(len, found)) else ["masks by mmdet: there are no boxes"]
    assert fallbacks == nothing


@pytest.mark.parametrize("num_proposals", [(0, 20), (30, 0), (0, 0)])
def test_images_without_proposals_have_no_detections(num_proposals):
    found = assert_same_detections(build_pair(standard_cfg()), make_batch((4, 3), num_proposals))
    for image, number in zip(found, num_proposals, strict=True):
        assert len(image) > 0 if number else len(image) == 0


def test_equal_scores_keep_mmdets_order():
    """Every box is there twice, and all scores of a class are the same."""
    pair = build_pair(standard_cfg())
    for head in pair:
        head.bbox_head.fc_cls.weight.data.zero_()
        head.bbox_head.fc_cls.bias.data[:2] += 1.0
    proposals, samples = make_batch()
    twice = [InstanceData(bboxes=p.bboxes.repeat_interleave(2, dim=0)) for p in proposals]
    assert_same_detections(pair, (twice, samples))


OTHERS = {
    "sampler": (
        dict(train_cfg=train_cfg(sampler=dict(type="OHEMSampler", num=20, pos_fraction=0.25))),
        "OHEMSampler",
    ),
    "ignored": (
        dict(
            train_cfg=train_cfg(
                assigner=dict(
                    type="MaxIoUAssigner", pos_iou_thr=0.5, neg_iou_thr=0.5, ignore_iof_thr=0.5
                )
            )
        ),
        "ignored",
    ),
    "scaled-overlaps": (
        dict(
            train_cfg=train_cfg(
                assigner=dict(
                    type="MaxIoUAssigner",
                    pos_iou_thr=0.5,
                    neg_iou_thr=0.5,
                    iou_calculator=dict(type="BboxOverlaps2D", dtype="fp16", scale=64.0),
                )
            )
        ),
        "IoU",
    ),
    "scores": (dict(bbox_head=box_head(loss_cls=dict(type="SeesawLoss", num_classes=5))), "Seesaw"),
    "coder": (
        dict(bbox_head=box_head(bbox_coder=dict(type="DeltaXYWHBBoxCoder", add_ctr_clamp=True))),
        "coded",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_handled_is_left_to_mmdet(name, fallbacks):
    changes, reason = OTHERS[name]
    pair = build_pair(standard_cfg(**changes))
    assert_same_training(pair, make_batch())
    assert len(fallbacks) == 1 and reason in fallbacks[0]
    assert_same_detections(pair, make_batch())


NMS = {
    "off": None,
    "soft": dict(type="soft_nms", iou_threshold=0.5, min_score=0.05),
    "class-agnostic": dict(type="nms", iou_threshold=0.5, class_agnostic=True),
}


@pytest.mark.parametrize("name", NMS)
def test_another_nms_is_left_to_mmdet(name, fallbacks):
    cfg = standard_cfg(test_cfg=TEST_CFG | dict(nms=NMS[name]))
    assert_same_detections(build_pair(cfg), make_batch())
    assert len(fallbacks) == 1 and "NMS" in fallbacks[0]


@pytest.mark.parametrize("method", ["bbox_loss", "mask_loss"])
def test_a_loss_that_a_subclass_replaces_is_used(method, fallbacks):
    head = build_pair(standard_cfg())[1]

    def double(self, *args, **kwargs):
        found = getattr(super(type(self), self), method)(*args, **kwargs)
        part = found[f"loss_{method[:4]}"]
        part[f"loss_{method[:4]}"] = 2 * part[f"loss_{method[:4]}"]
        return found

    plain, _ = losses_and_gradients(head, make_maps(), make_batch())
    head.__class__ = type("Mine", (type(head),), {method: double})
    found, _ = losses_and_gradients(head, make_maps(), make_batch())
    for name, value in plain.items():
        factor = 2 if name == f"loss_{method[:4]}" else 1
        torch.testing.assert_close(found[name], factor * value, rtol=1e-5, atol=1e-7)
    assert fallbacks == [f"RoI losses by mmdet: Mine has its own {method}"]


def test_raw_boxes_are_left_to_mmdet(fallbacks):
    theirs, ours = (head.eval() for head in build_pair(standard_cfg()))
    proposals, samples = make_batch()
    metas = [sample.metainfo for sample in samples]
    maps = make_maps()
    with torch.no_grad():
        expected, found = (
            head.predict_bbox(maps, metas, proposals, rcnn_test_cfg=None) for head in (theirs, ours)
        )
    torch.testing.assert_close(found[0].scores, expected[0].scores)
    assert "views" in fallbacks[0]


def _of_integers(masks):
    objects = [[polygon.astype(int) for polygon in polygons] for polygons in masks.masks]
    return PolygonMasks(objects, masks.height, masks.width)


def test_polygons_of_integers_are_left_to_mmdet(fallbacks):
    proposals, samples = make_batch(masks="polygon")
    for sample in samples:
        sample.gt_instances.masks = _of_integers(sample.gt_instances.masks)
    assert_same_training(build_pair(standard_cfg()), (proposals, samples))
    assert len(fallbacks) == 1 and "float64" in fallbacks[0]


def test_soft_targets_of_polygons_raise_as_in_mmdet():
    _, ours = build_pair(HEADS["soft-targets"])
    with pytest.raises(ValueError, match="Polygons are always binary"):
        ours.loss(tuple(make_maps()), *make_batch(masks="polygon"))


def test_a_box_that_is_no_number_does_not_stop_training():
    """As in mmdet, where it has no features; what explodes shows in the loss."""
    theirs, ours = (head.eval() for head in build_pair(standard_cfg()))
    rois = torch.tensor([[0, torch.nan, 0, 50, 50], [1, 10, 10, 40, 50], [0, 0, 0, 150, 90.0]])
    maps = make_maps()
    expected, found = (head._bbox_forward(maps, rois)["bbox_feats"] for head in (theirs, ours))
    torch.testing.assert_close(found, expected)
    assert found[0].eq(0).all() and found[1].ne(0).any()


@pytest.mark.usefixtures("pooling_of_gpus")
@pytest.mark.parametrize("masks", ["bitmap", "polygon"])
def test_waits_do_not_grow_with_images_or_objects(masks):
    _, ours = build_pair(standard_cfg())
    batches = [make_batch(gts, [40] * len(gts), masks) for gts in ([2], [6], [2, 2], [6, 6])]
    (count,) = {waits_of_training(ours, batch) for batch in batches}
    # Counts of samples, of boxes and masks on each level, of edges of polygons; the choice of
    # samples also counts what is on the host, twice.
    assert count <= (6 if masks == "polygon" else 5)


@pytest.mark.usefixtures("pooling_of_gpus")
@pytest.mark.parametrize("num_images", [1, 2])
def test_waits_in_detection(num_images):
    _, ours = build_pair(HEADS["boxes-only"])
    batch = make_batch((3,) * num_images, (40,) * num_images, masks=None)
    # Levels of boxes, candidates, detections; and two in the NMS of each image.
    assert waits_of_detection(ours, batch) <= 3 + 2 * num_images


def test_state_dict_and_arguments_are_mmdets():
    assert_same_arguments(*build_pair(standard_cfg()))
