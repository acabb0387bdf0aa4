"""The batched Hybrid Task Cascade against mmdet's: losses, gradients, detections, waits."""

import pytest
import torch
from mmengine.structures import PixelData
from roi_head_tools import (
    CHANNELS,
    TEST_CFG,
    assert_same_detections,
    assert_same_training,
    build_pair,
    cascade_cfg,
    make_batch,
    make_maps,
    mask_head,
    waits_of_detection,
    waits_of_training,
)

SEMANTIC = dict(
    semantic_roi_extractor=dict(
        type="SingleRoIExtractor",
        roi_layer=dict(type="RoIAlign", output_size=8, sampling_ratio=0),
        out_channels=CHANNELS,
        featmap_strides=[8],
    ),
    semantic_head=dict(
        type="FusedSemanticHead",
        num_ins=4,
        fusion_level=1,
        seg_scale_factor=1 / 8,
        num_convs=1,
        in_channels=CHANNELS,
        conv_out_channels=CHANNELS,
        num_classes=4,
    ),
)


def hybrid_cfg(**changes):
    """Mask heads that pass their features on, but for the first, which has none to take."""
    heads = [mask_head(type="HTCMaskHead", with_conv_res=stage > 0) for stage in range(3)]
    return cascade_cfg(**dict(type="HybridTaskCascadeRoIHead", mask_head=heads) | changes)


def make_semantic_batch(**changes):
    proposals, samples = make_batch(**changes)
    generator = torch.Generator().manual_seed(4)
    for sample in samples:
        labels = torch.randint(4, (1, 160, 240), generator=generator)
        sample.gt_sem_seg = PixelData(sem_seg=labels)
    return proposals, samples


SOFT = "NMS is {'type': 'soft_nms', 'iou_threshold': 0.5}"
HEADS = {
    "plain": hybrid_cfg(),
    "semantic": hybrid_cfg(**SEMANTIC),
    "semantic-boxes-only": hybrid_cfg(**SEMANTIC, semantic_fusion=("bbox",)),
    "semantic-masks-only": hybrid_cfg(**SEMANTIC, semantic_fusion=("mask",)),
    "not-interleaved": hybrid_cfg(interleaved=False),
    "no-information-flow": hybrid_cfg(
        mask_info_flow=False, mask_head=mask_head(type="HTCMaskHead", with_conv_res=False)
    ),
    "without-masks": hybrid_cfg(mask_head=None, mask_roi_extractor=None),
}


@pytest.mark.parametrize("name", HEADS)
def test_hybrid_cascades_learn_as_mmdets(name, fallbacks):
    losses = assert_same_training(build_pair(HEADS[name]), make_semantic_batch())
    assert ("loss_semantic_seg" in losses) == name.startswith("semantic")
    assert ("s2.loss_mask" in losses) == (name != "without-masks")
    assert not fallbacks


# mmdet's semantic head loses the batch axis of one image.
@pytest.mark.parametrize(("counts", "name"), [((0, 3), "semantic"), ((5,), "plain")])
def test_hybrid_batches_are_learnt_from_as_by_mmdets(counts, name, fallbacks):
    batch = make_semantic_batch(counts=counts, masks="polygon")
    assert_same_training(build_pair(HEADS[name]), batch)
    assert not fallbacks


def test_nothing_to_refine_ends_the_hybrid_cascade():
    """mmdet's raises here: nothing is not a list of boxes."""
    agnostic = dict(reg_class_agnostic=True, loss_bbox=dict(type="SmoothL1Loss"))
    cfg = hybrid_cfg(bbox_head=cascade_cfg(agnostic)["bbox_head"])
    _, ours = build_pair(cfg)
    proposals, samples = make_batch(counts=(0, 0), num_proposals=(0, 0))
    maps = tuple(torch.zeros(2, CHANNELS, 160 // s, 240 // s) for s in (4, 8, 16, 32))
    losses = ours.loss(maps, proposals, samples)
    assert [*losses] == ["s0.loss_bbox", "s0.loss_mask"]


@pytest.mark.parametrize("nms", ["nms", "soft_nms"])
@pytest.mark.parametrize("name", sorted({*HEADS} - {"no-information-flow"}))  # where mmdet's fails
def test_hybrid_cascades_detect_as_mmdets(name, nms, fallbacks):
    cfg = HEADS[name] | dict(test_cfg=TEST_CFG | dict(nms=dict(type=nms, iou_threshold=0.5)))
    found = assert_same_detections(build_pair(cfg), make_batch())
    assert all(len(image) > 3 for image in found)
    assert [*fallbacks] == (
        ["suppression of detections by mmdet: " + SOFT] if "soft" in nms else []
    )


def test_masks_of_heads_that_pass_nothing_on_are_the_last_ones():
    _, ours = build_pair(HEADS["no-information-flow"])
    x = make_maps()
    rois = torch.tensor([[0.0, 10, 10, 60, 50], [1, 0, 0, 130, 90]])
    found = ours._mask_forward(-1, x, rois, training=False)["mask_preds"]
    expected = ours.mask_head[-1](ours.mask_roi_extractor[-1](x, rois), return_feat=False)
    torch.testing.assert_close(found, [expected])


@pytest.mark.usefixtures("pooling_of_gpus")
@pytest.mark.parametrize("name", ["plain", "semantic"])
def test_waits_do_not_grow_with_images_or_objects(name):
    _, ours = build_pair(HEADS[name])
    for gts in ([2, 2], [6, 6], *([[2]] if name == "plain" else [])):
        batch = make_semantic_batch(counts=gts, num_proposals=[40] * len(gts))
        # In each stage: samples for boxes and for masks, boxes and masks on each level.
        assert waits_of_training(ours, batch) == 3 * 4


@pytest.mark.usefixtures("pooling_of_gpus")
def test_waits_in_detection():
    _, ours = build_pair(HEADS["without-masks"])
    # Levels of boxes in each stage, candidates, detections; and two in the NMS of each image.
    assert waits_of_detection(ours, make_semantic_batch()) <= 3 + 2 + 2 * 2


def test_other_samplers_of_hybrid_cascades_are_left_to_mmdet(fallbacks):
    cfg = hybrid_cfg(
        bbox_head=cascade_cfg()["bbox_head"],
        train_cfg=[
            stage | dict(sampler=stage["sampler"] | dict(type="PseudoSampler"))
            for stage in cascade_cfg()["train_cfg"]
        ],
    )
    _, ours = build_pair(cfg)
    assert "PseudoSampler" in ours._unsupported_loss(make_batch()[1])


def test_hybrid_state_dict_and_arguments_are_mmdets():
    theirs, ours = build_pair(HEADS["semantic"])
    assert [*ours.state_dict()] == [*theirs.state_dict()]
    assert isinstance(ours, type(theirs))
