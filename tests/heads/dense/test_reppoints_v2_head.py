"""RepPoints V2: the official state dict, losses and boxes, and its formulas by hand."""

import math

import pytest
import torch
from mmdet.models.losses import (
    FocalLoss,
    GaussianFocalLoss,
    GIoULoss,
    QualityFocalLoss,
    SmoothL1Loss,
)
from mmengine.config import ConfigDict
from point_tools import TRAIN_CFG, build_head, features, fill, samples

from swin_mm.heads.dense.point_losses import (
    PointMaps,
    box_loss,
    class_loss,
    corner_losses,
    map_loss,
)
from swin_mm.heads.dense.reppoints_v2_head import CornerPoolPack, RepPointsV2Head
from swin_mm.heads.ops.points import GroundTruths, PointGrid

# What the official code gives for the same parameters, features and ground truths
# (https://github.com/SwinTransformer/Swin-Transformer-Object-Detection at c7b2011).
OFFICIAL_LOSSES = dict(
    loss_cls=1.816032,
    loss_pts_init=0.484644,
    loss_pts_refine=0.759037,
    loss_heatmap=11.595383,
    loss_offset=1.332026,
    loss_sem=0.154484,
)
# Norms of the gradients of their sum.
OFFICIAL_GRADIENTS = {
    "reppoints_pts_init_out.weight": 0.447854,
    "hem_tl.p1_conv1.conv.weight": 2.361772,
}
# The best of 100 boxes of both images: corners, score, class.
OFFICIAL_BOXES = (
    [
        [152.6292, 243.8303, 185.1920, 281.7405, 0.385966, 1],
        [61.2014, 54.8080, 84.3229, 96.1860, 0.357707, 0],
        [280.8523, 114.1698, 288.9922, 147.2648, 0.356689, 0],
        [301.0724, 82.2930, 320.6032, 123.4227, 0.355299, 1],
    ],
    [
        [295.3401, 146.1343, 312.1311, 178.0928, 0.384726, 1],
        [221.1641, 2.1404, 235.8558, 44.8566, 0.384182, 0],
        [189.1176, 140.3115, 257.7869, 323.5067, 0.383918, 1],
        [20.2909, 267.9765, 50.5229, 321.1770, 0.382994, 1],
    ],
)


def official_state(width=256, classes=80, stacked=3):
    """Names and shapes of the official head's state dict, in the sizes of its config."""
    found = {}

    def add(name, *shape, bias=True):
        found[f"{name}.weight"] = shape
        if bias:
            found[f"{name}.bias"] = shape[:1]

    def add_normed(name, *shape):
        add(f"{name}.conv", *shape, bias=False)
        add(f"{name}.gn", shape[0])

    for i in range(stacked):
        add_normed(f"cls_convs.{i}", width, width, 3, 3)
        add_normed(f"reg_convs.{i}", width, width, 3, 3)
    add_normed("shared_convs.0", width, width, 3, 3)
    for corner in ("tl", "br"):
        add_normed(f"hem_{corner}.p1_conv1", 64, width, 3, 3)
        add_normed(f"hem_{corner}.p2_conv1", 64, width, 3, 3)
        add(f"hem_{corner}.p_conv1", width, 64, 3, 3, bias=False)
        add(f"hem_{corner}.p_gn1", width)
        add(f"hem_{corner}.conv1", width, width, 1, 1, bias=False)
        add(f"hem_{corner}.gn1", width)
        add_normed(f"hem_{corner}.conv2", width, width, 1, 1)
        add(f"reppoints_hem_{corner}_score_out", 1, width, 3, 3)
        add(f"reppoints_hem_{corner}_offset_out", 2, width, 3, 3)
    add("reppoints_cls_conv", width, width + 6, 3, 3, bias=False)
    add("reppoints_cls_out", classes, width, 1, 1)
    add("reppoints_pts_init_conv", width, width, 3, 3)
    add("reppoints_pts_init_out", 18, width, 1, 1)
    add("reppoints_pts_refine_conv", width, width + 6, 3, 3, bias=False)
    add("reppoints_pts_refine_out", 18, width, 1, 1)
    add("reppoints_sem_out", classes, width, 1, 1)
    add_normed("reppoints_sem_embedding", width, width, 1, 1)
    return found


def test_state_dict_is_the_official_one():
    with torch.device("meta"):
        norm = dict(type="GN", num_groups=32)
        head = RepPointsV2Head(80, 256, stacked_convs=3, norm_cfg=norm)
    assert {name: tuple(x.shape) for name, x in head.state_dict().items()} == official_state()


def total(losses):
    return sum(losses.values())


def test_losses_and_gradients_are_the_official_ones():
    head = fill(build_head(RepPointsV2Head))
    losses = head.loss(features(), samples())
    assert {k: v.item() for k, v in losses.items()} == pytest.approx(OFFICIAL_LOSSES, rel=1e-4)
    total(losses).backward()
    for name, norm in OFFICIAL_GRADIENTS.items():
        assert head.get_parameter(name).grad.norm().item() == pytest.approx(norm, rel=1e-3)


def test_boxes_are_the_official_ones():
    head = fill(build_head(RepPointsV2Head)).eval()
    with torch.no_grad():
        found = head.predict(features(), samples())
    for image, wanted in zip(found, OFFICIAL_BOXES, strict=True):
        assert set(image.keys()) == {"bboxes", "scores", "labels"} and len(image) == 100
        best = torch.cat((image.bboxes, image.scores[:, None], image.labels[:, None]), 1)[:4]
        torch.testing.assert_close(best, torch.tensor(wanted), rtol=1e-3, atol=0.01)


def test_boxes_without_the_heatmaps_are_the_decoded_ones():
    head = fill(build_head(RepPointsV2Head, corner_refine=False)).eval()
    (sample,) = samples()[:1]
    with torch.no_grad():
        maps = PointMaps(*head(features(1)))
        (found,) = head.predict(features(1), [sample])
    boxes = head._decode(maps.pts_refine, head._make_grid(maps))[0].clamp(0, 384)
    distance = (boxes[None] - found.bboxes[:, None]).abs().amax(-1).amin(1)
    assert len(found) == 100 and distance.max() < 1e-3


def test_weights_of_points_and_scores_begin_near_zero():
    head = build_head(RepPointsV2Head)
    torch.manual_seed(0)
    head.init_weights()
    prior = -math.log(0.99 / 0.01)
    for name in ("cls_out", "sem_out", "hem_tl_score_out", "hem_br_score_out"):
        layer = getattr(head, f"reppoints_{name}")
        assert layer.bias.allclose(torch.tensor(prior)) and 0 < layer.weight.std() < 0.012
    for layer in (head.reppoints_cls_conv, head.reppoints_pts_init_out, head.shared_convs[0].conv):
        assert 0.008 < layer.weight.std() < 0.012
    assert head.hem_tl.conv2.conv.weight.std() > 0.05  # as convolutions begin elsewhere


def test_corner_pooling_by_hand():
    """Largest value below and to the right for a top left corner; above and to the left else."""
    x = torch.tensor([[0.0, 3, 1], [2, 0, 0], [0, 1, 0]])[None, None]
    pack = CornerPoolPack(32, 32, ("top", "left"), None)
    below = torch.tensor([[2.0, 3, 1], [2, 1, 0], [0, 1, 0]])
    right = torch.tensor([[3.0, 3, 1], [2, 0, 0], [1, 1, 0]])
    assert torch.equal(pack.pool1(x)[0, 0], below) and torch.equal(pack.pool2(x)[0, 0], right)
    pack = CornerPoolPack(32, 32, ("bottom", "right"), None)
    above = torch.tensor([[0.0, 3, 1], [2, 3, 1], [2, 3, 1]])
    left = torch.tensor([[0.0, 3, 3], [2, 2, 2], [0, 1, 1]])
    assert torch.equal(pack.pool1(x)[0, 0], above) and torch.equal(pack.pool2(x)[0, 0], left)


def test_first_two_points_are_corners():
    head = build_head(RepPointsV2Head)
    pts = torch.arange(18.0)[None, :, None, None]
    assert head.points2bbox(pts).flatten().tolist() == [1, 0, 3, 2]  # y comes first
    assert head.points2bbox(pts[:, :, 0, 0], y_first=False).tolist() == [[0, 1, 2, 3]]
    pts = torch.tensor([[1.0, 2, 5, 3, 0, 9]])[..., None, None].repeat(1, 3, 1, 1)
    minmax = build_head(RepPointsV2Head, transform_method="minmax")
    assert minmax.points2bbox(pts).flatten().tolist() == [2, 0, 9, 5]


def make_grid(num=4, stride=8.0):
    """A row of points of one level."""
    points = torch.stack((torch.arange(num) * stride, torch.zeros(num)), dim=1)
    return PointGrid(points, torch.full((num,), stride), [num], torch.ones(1, num).bool())


def truth(*boxes, labels=(0,)):
    return GroundTruths.pad([torch.tensor(boxes)], [torch.tensor(labels)])


def test_box_loss_by_hand():
    """A box of 2 x 1 units and one of 1 x 1 from the same corner cover 3 x 2 and 2 x 2 units."""
    boxes = torch.tensor([[[0.0, 0, 64, 32], [0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1]]])
    assigned = torch.tensor([[1, 0, 0, 0]])
    loss = box_loss(GIoULoss(), boxes, assigned, make_grid(), truth([0.0, 0, 32, 32]), base_scale=4)
    # The smaller lies in the larger, so GIoU is IoU.
    assert loss.item() == pytest.approx(1 - 4 / 6)


def test_class_loss_by_hand():
    """|IoU - p|^2 times cross entropy with the IoU for the label, p^2 -log(1 - p) elsewhere."""
    scores = torch.tensor([[[0.3, -1.0], [2.0, 0.5]]])
    boxes = torch.tensor([[[0.0, 0, 16, 8], [0, 0, 8, 8]]])
    loss = class_loss(
        QualityFocalLoss(),
        scores,
        boxes,
        torch.tensor([[1, 0]]),
        make_grid(2),
        truth([0.0, 0, 8, 8], labels=[1]),
    )
    p = scores.sigmoid().flatten().tolist()
    iou = 0.5
    positive = abs(iou - p[1]) ** 2 * -(iou * math.log(p[1]) + (1 - iou) * math.log(1 - p[1]))
    negative = sum(q**2 * -math.log(1 - q) for q in (p[0], p[2], p[3]))
    assert loss.item() == pytest.approx(positive + negative, rel=1e-5)  # one positive


def test_focal_loss_takes_labels():
    head = build_head(RepPointsV2Head, loss_cls=dict(type="FocalLoss", use_sigmoid=True))
    losses = fill(head).loss(features(), samples())
    assert losses["loss_cls"].isfinite() and losses["loss_cls"] != OFFICIAL_LOSSES["loss_cls"]


def single_maps(**changes):
    """Maps of one level of 1 x 4 cells."""
    none = [torch.zeros(1, 1, 1, 4)]
    maps = dict.fromkeys(PointMaps._fields, none)
    return PointMaps(**{**maps, **{name: [x] for name, x in changes.items()}})


def test_corner_losses_by_hand():
    """A box from (2, 1) to (23, 2): its corners are nearest to the points 0 and 24."""
    scores = torch.tensor([0.5, -1.0, 0.2, 0.1]).repeat(2).view(1, 2, 1, 4)
    offsets = torch.zeros(1, 4, 1, 4)
    maps = single_maps(corner_scores=scores, corner_offsets=offsets)
    losses = corner_losses(
        GaussianFocalLoss(alpha=2.0, gamma=4.0),
        SmoothL1Loss(beta=1 / 9),
        maps,
        make_grid(),
        truth([2.0, 1, 23, 2]),
        0.7,
    )
    # The radius of so flat a box reaches no other point.
    p = torch.tensor([0.5, -1.0, 0.2, 0.1]).sigmoid().tolist()
    lit = [-math.log(q) * (1 - q) ** 2 for q in p]
    dark = [-math.log(1 - q) * q**2 for q in p]
    first, last = lit[0] + sum(dark[1:]), lit[3] + sum(dark[:3])
    assert losses["loss_heatmap"].item() == pytest.approx((first + last) / 2, rel=1e-5)
    # Shifts are (2, 1) / 8 and (-1, 2) / 8, against none.
    shifts = [abs(d) / 8 for d in (2, 1, -1, 2)]
    smooth = [d - 0.5 / 9 if d >= 1 / 9 else 0.5 * 9 * d * d for d in shifts]
    assert losses["loss_offset"].item() == pytest.approx(sum(smooth) / 2, rel=1e-5)


def test_class_map_loss_by_hand():
    """Two boxes of areas 64 and 16 in a map of four cells, and again in one of two."""
    boxes = truth([0.0, 0, 8, 8], [24, 0, 28, 4], labels=(0, 0))
    fine, coarse = torch.tensor([0.5, -1.0, 0.2, 0.1]), torch.tensor([0.4, -0.3])
    maps = [fine.view(1, 1, 1, 4), coarse.view(1, 1, 1, 2)]
    loss = map_loss(FocalLoss(use_sigmoid=True, gamma=2.0, alpha=0.25), maps, boxes, 1, 8)
    # The first box touches cells 0 and 1, the second cell 3; the coarse map takes cells 0 and 2.
    weights = {0: 1 / 64, 1: 1 / 64, 3: 1 / 16, 4: 1 / 64}
    wanted = 0.0
    for i, p in enumerate(torch.cat((fine, coarse)).sigmoid().tolist()):
        if i in weights:
            wanted += 0.25 * (1 - p) ** 2 * -math.log(p) * weights[i] / sum(weights.values())
        else:
            wanted += 0.75 * p**2 * -math.log(1 - p) / len(weights)
    assert loss.item() == pytest.approx(wanted, rel=1e-5)


def test_gradients_of_the_losses():
    """By differences, in float64; assignments do not change with steps that small."""
    torch.manual_seed(0)
    grid = make_grid()
    boxes = truth([2.0, 1, 23, 20], [10, 0, 30, 9], labels=(0, 1))
    boxes = boxes._replace(boxes=boxes.boxes.double())
    inputs = [torch.randn(1, c, 1, 4, dtype=torch.float64) for c in (2, 4, 2)]
    pts = torch.tensor([-8.0, -8, 9, 9]) + torch.randn(1, 4, 4, dtype=torch.float64)
    assigned = torch.tensor([[1, 2, 0, 2]])
    still = pts + grid.points.repeat(1, 2)

    def run(heat, shift, classes, box):
        maps = single_maps(corner_scores=heat, corner_offsets=shift)
        grown = box + grid.points.repeat(1, 2)
        losses = corner_losses(GaussianFocalLoss(), SmoothL1Loss(), maps, grid, boxes, 0.7)
        scores = classes[:, :, 0].transpose(1, 2)
        return (
            *losses.values(),
            map_loss(FocalLoss(), [classes], boxes, 2, 8),
            box_loss(GIoULoss(), grown, assigned, grid, boxes, 4),
            # No gradient goes through the IoU that scores learn, so its boxes stay where they are.
            class_loss(QualityFocalLoss(), scores, still, assigned, grid, boxes),
        )

    values = [x.requires_grad_() for x in (*inputs, pts)]
    assert torch.autograd.gradcheck(run, values)


def test_points_move_by_a_tenth_of_the_gradient_of_what_reads_at_them():
    head = fill(build_head(RepPointsV2Head))
    gradients = []
    for share in (0.1, 0.2):
        head.gradient_mul = share
        head.zero_grad()
        head(features(1))[0][0].square().sum().backward()  # of the scores alone
        gradients.append(head.reppoints_pts_init_out.weight.grad.clone())
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(gradients[1], 2 * gradients[0], rtol=1e-3, atol=1e-5)


def test_a_batch_without_objects_teaches_every_parameter():
    """So that distributed training, which waits for all gradients, goes on."""
    head = build_head(RepPointsV2Head)
    torch.manual_seed(0)
    head.init_weights()
    losses = head.loss(features(side=96), samples([[], []], [[], []], side=96))
    assert losses["loss_pts_refine"] == 0 and losses["loss_offset"] == 0
    total(losses).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("side", [100, 61])
def test_sides_that_are_no_multiples_of_strides(side):
    head = fill(build_head(RepPointsV2Head))
    boxes = [[[5.0, 9, 50, 44]], [[10.0, 2, 30, 40]]]
    found = samples(boxes, [[1], [2]], side)
    for sample in found:
        shape = (side, side)
        sample.set_metainfo(dict(img_shape=shape, pad_shape=shape, ori_shape=(2 * side, 2 * side)))
        sample.set_metainfo(dict(scale_factor=(0.5, 0.5)))
    maps = features(side=side)
    assert all(loss.isfinite() for loss in head.loss(maps, found).values())
    with torch.no_grad():
        boxes = head.predict(maps, found, rescale=True)[0].bboxes
    assert len(boxes) and boxes.min() >= 0 and boxes.max() <= 2 * side


def test_half_precision_is_near():
    head = fill(build_head(RepPointsV2Head))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = head.loss(features(), samples())
    for name, wanted in OFFICIAL_LOSSES.items():
        assert losses[name].dtype == torch.float32
        assert losses[name].item() == pytest.approx(wanted, rel=0.1), name


def test_learns():
    """The loss of an image falls to less than two thirds in 10 steps."""
    torch.manual_seed(0)
    head = build_head(RepPointsV2Head)
    head.init_weights()
    optimizer = torch.optim.AdamW(head.parameters(), 3e-3)
    maps, found = features(1, side=192), samples([[[8.0, 8, 70, 90]]], [[1]], side=192)
    history = []
    for _ in range(10):
        loss = total(head.loss(maps, found))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < history[0] * 2 / 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(use_grid_points=True), "points must be free"),
        (dict(center_init=False), "points must be free"),
        (
            dict(train_cfg=ConfigDict(TRAIN_CFG, refine=TRAIN_CFG["init"])),
            "refine.assigner must be a plain ATSSAssigner, got .*PointAssigner",
        ),
    ],
)
def test_settings_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        build_head(RepPointsV2Head, **changes)
