"""Our region proposal head against mmdet's: losses, gradients, sampled sets, proposals, waits."""

import copy

import numpy as np
import pytest
import torch
from host_reads import Waits
from mmdet.models.dense_heads import RPNHead as MmdetRPNHead
from mmdet.models.task_modules import AssignResult, RandomSampler
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from rpn_tools import build_pair, make_gts, make_maps, make_metas, rpn_cfg

from swin_mm.heads import unsupported
from swin_mm.heads.dense import rpn_head
from swin_mm.heads.dense.anchors import make_anchors
from swin_mm.heads.ops import nms
from swin_mm.heads.ops.sample import sample_randomly
from swin_mm.heads.ops.transfer import image_sizes


@pytest.fixture
def no_detour(monkeypatch):
    """mmdet's methods are not called by ours."""

    def guard(method):
        def call(self, *args, **kwargs):
            assert type(self) is MmdetRPNHead, "left to mmdet"
            return method(self, *args, **kwargs)

        return call

    for name in ("loss_by_feat", "predict_by_feat"):
        monkeypatch.setattr(MmdetRPNHead, name, guard(getattr(MmdetRPNHead, name)))


def learn(head, maps, gts, metas, seed=3, ignored=None):
    """Losses by level, gradients of the maps and the parameters, and the next random number."""
    for leaf in (*maps, *head.parameters()):
        leaf.grad = None
    torch.manual_seed(seed)
    losses = head.loss_by_feat(*head(maps), gts, metas, ignored)
    sum(sum(of_level) for of_level in losses.values()).backward()
    gradients = [leaf.grad for leaf in (*maps, *head.parameters())]
    return losses, gradients, torch.rand(1)


def assert_same_training(pair, gts, metas, maps=None, ignored=None):
    maps = make_maps(len(metas)) if maps is None else maps
    (stock, stock_gradients, stock_number), (losses, gradients, number) = (
        learn(head, maps, gts, metas, ignored=ignored) for head in pair
    )
    assert number == stock_number
    assert losses.keys() == stock.keys() == {"loss_rpn_cls", "loss_rpn_bbox"}
    for key, values in stock.items():
        assert len(losses[key]) == len(values)
        torch.testing.assert_close(
            torch.stack(losses[key]), torch.stack(values), rtol=1e-6, atol=1e-9
        )
    for ours, theirs in zip(gradients, stock_gradients, strict=True):
        error = (ours - theirs).abs().max()
        assert error <= 1e-6 * theirs.abs().max(), (error, theirs.abs().max())
    return losses


def assert_same_proposals(pair, maps=None, metas=None, **options):
    maps, metas = maps or make_maps(), metas or make_metas()
    results = []
    for head in pair:
        options_of_its_own = copy.deepcopy(options)
        results.append(
            head.predict_by_feat(*head(maps), batch_img_metas=metas, **options_of_its_own)
        )
    for theirs, ours in zip(*results, strict=True):
        assert {*ours.keys()} == {*theirs.keys()} == {"bboxes", "scores", "labels"}
        assert torch.equal(ours.bboxes, theirs.bboxes)
        assert torch.equal(ours.scores, theirs.scores)
        assert torch.equal(ours.labels, theirs.labels.long())
        assert not ours.bboxes.requires_grad
    return results[1]


TRAINING = {
    "as-in-the-recipes": rpn_cfg(),
    "inside-only": rpn_cfg(dict(allowed_border=0)),
    "a-little-outside": rpn_cfg(dict(allowed_border=5)),
    "weighted-positives": rpn_cfg(dict(pos_weight=2.5)),
    "smooth-l1": rpn_cfg(loss_bbox=dict(type="SmoothL1Loss", beta=1 / 9, loss_weight=2.0)),
    "weighted-scores": rpn_cfg(
        loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=0.7)
    ),
    "stretched-deltas": rpn_cfg(
        bbox_coder=dict(
            type="DeltaXYWHBBoxCoder", target_means=[0.1, 0, 0, 0], target_stds=[0.1, 0.1, 0.2, 0.3]
        )
    ),
    "two-convolutions": rpn_cfg(num_convs=2),
    "bounded-negatives": rpn_cfg(
        dict(
            sampler=dict(
                type="RandomSampler",
                num=64,
                pos_fraction=0.25,
                neg_pos_ub=2,
                add_gt_as_proposals=False,
            )
        )
    ),
    "no-low-quality-matches": rpn_cfg(
        dict(
            assigner=dict(
                type="MaxIoUAssigner",
                pos_iou_thr=0.5,
                neg_iou_thr=(0.05, 0.4),
                match_low_quality=False,
            )
        )
    ),
}


@pytest.mark.usefixtures("no_detour")
@pytest.mark.parametrize("cfg", TRAINING.values(), ids=TRAINING)
def test_losses_and_gradients_are_mmdets(cfg):
    losses = assert_same_training(build_pair(cfg), make_gts(), make_metas())
    assert sum(losses["loss_rpn_bbox"]) > 0


@pytest.mark.usefixtures("no_detour")
def test_no_image_has_ground_truths():
    losses = assert_same_training(build_pair(rpn_cfg()), make_gts((0, 0)), make_metas(2))
    assert sum(losses["loss_rpn_bbox"]) == 0


@pytest.mark.usefixtures("no_detour")
def test_an_object_with_another_label_counts_as_in_mmdet():
    gts = make_gts((4, 3))
    gts[0].labels[1:3] = 1
    assert_same_training(build_pair(rpn_cfg()), gts, make_metas(2))


@pytest.mark.usefixtures("no_detour")
def test_channels_last_maps():
    maps = [
        level.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
        for level in make_maps()
    ]
    pair = build_pair(rpn_cfg())
    assert_same_training(pair, make_gts(), make_metas(), maps)
    assert_same_proposals(pair, maps)


@pytest.mark.usefixtures("no_detour")
def test_sampled_anchors_are_mmdets(monkeypatch):
    """Anchors of both, with their ground truths and those of them that may learn."""
    sampled = []

    def watch_mmdet(self, assign_result: AssignResult, pred_instances, gts, **kwargs):
        found = sample(self, assign_result, pred_instances, gts, **kwargs)
        sampled.append(torch.cat((found.pos_priors, found.neg_priors)))
        return found

    def watch_ours(assigned, *settings):
        chosen.append(sample_randomly(assigned, *settings))
        return chosen[-1]

    def watch_anchors(*settings):
        anchors.append(make_anchors(*settings))
        return anchors[-1]

    sample, chosen, anchors = RandomSampler.sample, [], []
    monkeypatch.setattr(rpn_head, "make_anchors", watch_anchors)
    monkeypatch.setattr(RandomSampler, "sample", watch_mmdet)
    monkeypatch.setattr(rpn_head, "sample_randomly", watch_ours)
    pair = build_pair(rpn_cfg(dict(allowed_border=3)))
    assert_same_training(pair, make_gts(), make_metas())
    assert len(sampled) == 4
    assert torch.equal(anchors[0].boxes[chosen[0].index], torch.cat(sampled))


PROPOSALS = {
    "as-in-the-recipes": {},
    "all": dict(nms_pre=-1, max_per_img=10_000),
    "few": dict(nms_pre=30, max_per_img=3),
    "large-only": dict(min_bbox_size=20),
    "of-any-size": dict(min_bbox_size=-1),
    "much-suppressed": dict(nms=dict(type="nms", iou_threshold=0.2)),
    "too-small-all-of-them": dict(min_bbox_size=500),
}


@pytest.mark.usefixtures("no_detour")
@pytest.mark.parametrize("proposal", PROPOSALS.values(), ids=PROPOSALS)
def test_proposals_are_mmdets(proposal):
    found = assert_same_proposals(build_pair(rpn_cfg(proposal=proposal)))
    assert sum(len(image) for image in found) > 0 or proposal.get("min_bbox_size") == 500


@pytest.mark.usefixtures("no_detour")
def test_proposals_of_equal_scores_come_in_mmdets_order():
    """As at the start of training: scores around 0.5, of which float32 has few."""
    pair = build_pair(rpn_cfg(proposal=dict(nms_pre=400, max_per_img=300)))
    for head in pair:
        torch.nn.init.zeros_(head.rpn_cls.weight)
        head.rpn_cls.bias.data.zero_()
    assert_same_proposals(pair)


@pytest.mark.usefixtures("no_detour")
def test_scores_of_small_levels_are_rounded_as_mmdets():
    """A CPU's sigmoid rounds otherwise in the last numbers of a tensor, here in all of them."""
    pair = build_pair(rpn_cfg(proposal=dict(nms_pre=-1, nms=dict(type="nms", iou_threshold=1.0))))
    assert_same_proposals(pair, [torch.randn(4, 8, 3, 3) for _ in range(4)])


@pytest.mark.usefixtures("no_detour")
def test_proposals_of_softmax_scores_and_without_clipping():
    cfg = rpn_cfg(
        loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=False),
        bbox_coder=dict(type="DeltaXYWHBBoxCoder", clip_border=False),
    )
    assert_same_proposals(build_pair(cfg))


@pytest.mark.usefixtures("no_detour")
def test_the_settings_of_training_go_before_those_of_the_test():
    pair = build_pair(rpn_cfg())
    cfg = ConfigDict(nms_pre=50, max_per_img=7, nms=dict(type="nms", iou_threshold=0.5))
    assert [len(image) for image in assert_same_proposals(pair, cfg=cfg)] == [7] * 4


REFUSED_TRAINING = {
    "focal-loss": (
        rpn_cfg(loss_cls=dict(type="FocalLoss", use_sigmoid=True)),
        "the loss of scores is not binary cross entropy",
    ),
    "softmax": (
        rpn_cfg(loss_cls=dict(type="CrossEntropyLoss")),
        "the loss of scores is not binary cross entropy",
    ),
    "weighted-class": (
        rpn_cfg(loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=True, class_weight=[2.0])),
        "the loss of scores has an ignored or a weighted class",
    ),
    "giou": (
        rpn_cfg(reg_decoded_bbox=True, loss_bbox=dict(type="GIoULoss")),
        "the regression loss is that of decoded boxes",
    ),
    "balanced-l1": (rpn_cfg(loss_bbox=dict(type="BalancedL1Loss")), "the loss of boxes is Bal"),
    "another-sampler": (
        rpn_cfg(dict(sampler=dict(type="PseudoSampler"))),
        "the sampler is a PseudoSampler",
    ),
    "sampled-ground-truths": (
        rpn_cfg(dict(sampler=dict(type="RandomSampler", num=64, pos_fraction=0.5))),
        "ground truths are sampled as anchors",
    ),
    "legacy-anchors": (
        rpn_cfg(
            anchor_generator=dict(
                type="LegacyAnchorGenerator", scales=[3], ratios=[1.0], strides=[4, 8, 16, 32]
            )
        ),
        "anchors are not plain boxes on a grid",
    ),
    "another-coder": (
        rpn_cfg(bbox_coder=dict(type="LegacyDeltaXYWHBBoxCoder")),
        "boxes are not coded by a plain",
    ),
    "ignored-regions": (
        rpn_cfg(
            dict(
                assigner=dict(
                    type="MaxIoUAssigner", pos_iou_thr=0.7, neg_iou_thr=0.3, ignore_iof_thr=0.5
                )
            )
        ),
        "ground truths are ignored or permuted",
    ),
}


@pytest.mark.parametrize("cfg, reason", REFUSED_TRAINING.values(), ids=REFUSED_TRAINING)
def test_mmdet_computes_the_losses_that_ours_does_not(cfg, reason):
    pair = build_pair(cfg)
    gts = make_gts((5, 3))
    assert reason in unsupported.rpn_losses(pair[1], gts)
    ignored = [InstanceData(bboxes=one.bboxes[:1] + 30) for one in gts]
    if "sampled" not in reason:  # which mmdet's own head cannot either
        assert_same_training(pair, gts, make_metas(2), ignored=ignored)


REFUSED_PROPOSALS = {
    "original-size": ({}, dict(rescale=True), "coordinates of the original images"),
    "soft-nms": (
        dict(nms=dict(type="soft_nms", iou_threshold=0.7)),
        {},
        "NMS is {'type': 'soft_nms', 'iou_threshold': 0.7}",
    ),
    "no-nms": (dict(nms=None), {}, "NMS is off"),
}


@pytest.mark.parametrize(
    "proposal, options, reason", REFUSED_PROPOSALS.values(), ids=REFUSED_PROPOSALS
)
def test_mmdet_makes_the_proposals_that_ours_does_not(proposal, options, reason):
    pair = build_pair(rpn_cfg(proposal=proposal))
    rescale = options.get("rescale", False)
    assert reason in unsupported.rpn_proposals(pair[1], pair[1].test_cfg, rescale, True)
    assert_same_proposals(pair, **options)


def test_what_a_subclass_replaces_is_used():
    _, head = build_pair(rpn_cfg())
    features, metas, parent = head(make_maps(2)), make_metas(2), type(head)

    class Mine(parent):
        def loss_by_feat_single(self, *args, **kwargs):
            return tuple(2 * x for x in super().loss_by_feat_single(*args, **kwargs))

        def _bbox_post_process(self, *args, **kwargs):
            return super()._bbox_post_process(*args, **kwargs)[:3]

    results = []
    for kind in (parent, Mine):
        head.__class__ = kind
        torch.manual_seed(0)
        losses = head.loss_by_feat(*features, make_gts((5, 3)), metas)
        found = head.predict_by_feat(*features, batch_img_metas=metas)
        results.append((losses, [image.bboxes for image in found]))
    (losses, boxes), (own_losses, own_boxes) = results
    for name, values in losses.items():
        torch.testing.assert_close(own_losses[name], [2 * x for x in values])
    torch.testing.assert_close(own_boxes, [image[:3] for image in boxes])


def test_no_anchor_is_inside():
    pair = build_pair(rpn_cfg(dict(allowed_border=0)))
    metas = make_metas(2)
    metas[1].update(img_shape=(5, 7), pad_shape=(32, 32))
    with pytest.raises(ValueError, match=r"within 0 pixels of an image of \(5, 7\) pixels"):
        learn(pair[1], make_maps(2), make_gts((2, 1)), metas)
    with pytest.raises(ValueError, match="no valid anchor inside the image"):
        learn(pair[0], make_maps(2), make_gts((2, 1)), metas)


@pytest.mark.usefixtures("no_detour")
def test_an_image_without_samples_is_no_error():
    """No anchor is background, nor is there an object."""
    assigner = dict(
        type="MaxIoUAssigner",
        pos_iou_thr=0.99,
        neg_iou_thr=(0.98, 0.985),
        match_low_quality=False,
    )
    pair = build_pair(rpn_cfg(dict(assigner=assigner, allowed_border=0)))
    losses = assert_same_training(pair, make_gts((2, 1)), make_metas(2))
    assert sum(losses["loss_rpn_cls"]) == 0


@pytest.mark.usefixtures("no_detour")
@pytest.mark.parametrize(
    "counts", [(1,), (9, 9), (40, 0, 3, 12)], ids=["1-image", "2-images", "4-images"]
)
def test_the_host_waits_once_for_losses_and_once_for_proposals(counts, monkeypatch):
    """However many images and ground truths there are; NMS, a kernel on GPUs, is not counted."""
    _, head = build_pair(rpn_cfg(dict(allowed_border=0)))
    maps = make_maps(len(counts))
    gts, metas = make_gts(counts), make_metas(len(counts))
    features = head(maps)
    monkeypatch.setattr(nms, "nms_sorted", lambda boxes, valid, iou_threshold: valid)
    with Waits() as of_losses:
        head.loss_by_feat(*features, gts, metas)
    with Waits() as of_proposals:
        head.predict_by_feat(*features, batch_img_metas=metas)
    assert (of_losses.count, of_proposals.count) == (1, 1)


def test_waits_are_counted():
    """The counter sees what mmdet's head does."""
    head, _ = build_pair(rpn_cfg())
    features = head(make_maps(2))
    with Waits() as waits:
        head.loss_by_feat(*features, make_gts((9, 9)), make_metas(2))
    assert waits.count > 18  # one for each ground truth alone


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    """Scores and deltas in half precision give what the same numbers in float32 do."""
    _, head = build_pair(rpn_cfg())
    features = [[level.detach().to(dtype) for level in part] for part in head(make_maps(2))]
    wide = [[level.float() for level in part] for part in features]
    gts, metas = make_gts((5, 3)), make_metas(2)
    results = []
    for scores, deltas in (features, wide):
        torch.manual_seed(0)
        losses = head.loss_by_feat(scores, deltas, gts, metas)
        found = head.predict_by_feat(scores, deltas, batch_img_metas=metas)
        results.append((losses, [image.bboxes for image in found]))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)


def test_learns_after_inference_mode():
    """Anchors made there are used in training."""
    pair = build_pair(rpn_cfg())
    maps = make_maps()
    with torch.inference_mode():
        pair[1].predict_by_feat(*pair[1](maps), batch_img_metas=make_metas())
    assert_same_training(pair, make_gts(), make_metas(), maps)


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor, torch.Size])
def test_shapes_of_any_kind(kind):
    metas = [dict(img_shape=kind([37, 50]), pad_shape=kind([64, 64]))]
    assert image_sizes(metas).tolist() == [[50, 37]]
    assert image_sizes(metas, "pad_shape").tolist() == [[64, 64]]
