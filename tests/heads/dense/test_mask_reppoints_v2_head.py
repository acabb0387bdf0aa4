"""Mask RepPoints V2: the official state dict, losses and masks, and its formulas by hand."""

import pytest
import torch
from mmdet.structures.mask import PolygonMasks
from mmengine.config import ConfigDict
from point_tools import TEST_CFG, WIDTH, build_head, features, fill, samples
from test_reppoints_v2_head import official_state

from swin_mm.heads.dense.conditional_masks import DynamicMaskHead, MaskBranch
from swin_mm.heads.dense.mask_reppoints_v2_head import MaskRepPointsV2Head, find_centroids
from swin_mm.heads.dense.point_losses import PointMaps

# What the official code gives for the same parameters, features and ground truths
# (https://github.com/SwinTransformer/Swin-Transformer-Object-Detection at c7b2011).
OFFICIAL_LOSSES = dict(
    loss_cls=1.543324,
    loss_pts_init=0.551611,
    loss_pts_refine=0.802674,
    loss_heatmap=9.566895,
    loss_offset=1.113268,
    loss_sem=0.157226,
    loss_mask_0=0.0,
    loss_mask_1=0.444991,
    loss_mask_2=0.737721,
)
OFFICIAL_GRADIENTS = {
    "reppoints_pts_init_out.weight": 0.526242,
    "hem_tl.p1_conv1.conv.weight": 1.830609,
    "controller.weight": 0.662132,
}
# Pixels of the masks of the best boxes of the first image.
OFFICIAL_AREAS = [147456, 63142, 147456, 95548, 147456, 138321, 147456, 141862]


def build(**changes):
    """A head that finds eight objects, each of which costs a mask."""
    settings = dict(mask_channels=WIDTH, test_cfg=ConfigDict(TEST_CFG, max_per_img=8))
    return fill(build_head(MaskRepPointsV2Head, **{**settings, **changes}))


def test_state_dict_is_the_official_one():
    with torch.device("meta"):
        norm = dict(type="GN", num_groups=32)
        head = MaskRepPointsV2Head(80, 256, stacked_convs=3, norm_cfg=norm)
    wanted = official_state()
    wanted |= {"controller.weight": (189, 256, 3, 3), "controller.bias": (189,)}
    for i, width in enumerate([256] * 3 + [128] * 4):
        name = f"mask_head.branch.{f'refine.{i}' if i < 3 else f'tower.{i - 3}'}"
        wanted[f"{name}.conv.weight"] = (128, width, 3, 3)
        wanted |= {f"{name}.bn.{n}": (128,) for n in ("weight", "bias")}
        wanted |= {f"{name}.bn.running_{n}": (128,) for n in ("mean", "var")}
        wanted[f"{name}.bn.num_batches_tracked"] = ()
    wanted["mask_head.branch.tower.4.weight"] = (8, 128, 1, 1)
    wanted["mask_head.branch.tower.4.bias"] = (8,)
    wanted["mask_head.head.sizes_of_interest"] = (5,)
    assert {name: tuple(x.shape) for name, x in head.state_dict().items()} == wanted


def test_losses_and_gradients_are_the_official_ones():
    head = build()
    losses = head.loss(features(), samples(masks=True))
    assert {k: v.item() for k, v in losses.items()} == pytest.approx(OFFICIAL_LOSSES, rel=1e-4)
    sum(losses.values()).backward()
    for name, norm in OFFICIAL_GRADIENTS.items():
        assert head.get_parameter(name).grad.norm().item() == pytest.approx(norm, rel=1e-3)


def test_masks_are_the_official_ones():
    head = build().eval()
    with torch.no_grad():
        (found,) = head.predict(features(1), samples()[:1], rescale=True)
    assert set(found.keys()) == {"bboxes", "scores", "labels", "masks"}
    assert found.masks.shape == (8, 384, 384) and found.masks.dtype == torch.bool
    areas = found.masks.sum((1, 2)).tolist()
    assert areas == pytest.approx(OFFICIAL_AREAS, rel=1e-3)


def test_each_image_has_its_own_masks():
    """Those of a batch are those of its images alone."""
    head = build().eval()
    maps, found = features(), samples(masks=True)
    with torch.no_grad():
        both = head.predict(maps, found)
        alone = [head.predict([m[i : i + 1] for m in maps], [found[i]])[0] for i in range(2)]
    for one, other in zip(both, alone, strict=True):
        torch.testing.assert_close(one.bboxes, other.bboxes, rtol=1e-3, atol=0.01)
        assert (one.masks != other.masks).float().mean() < 1e-4


def test_networks_by_hand():
    """Two convolutions on one feature and the distance, for two objects at two levels."""
    head = DynamicMaskHead(1, 2, 2, (10, 20)).train()
    # 2 x 3 and 1 x 2 weights, 2 and 1 biases; and of the twin of the first 1 x 3 and 1.
    assert head.num_params == 6 + 2 + 2 + 1 + 3 + 1
    torch.manual_seed(0)
    features, params = torch.randn(2, 1, 2, 3), torch.randn(2, head.num_params)
    centers = torch.tensor([[6.0, 2.0], [0.0, 9.0]])
    early, last = head(features, params, centers, torch.tensor([0, 1]), stride=4)
    for i, size in enumerate((10, 20)):
        p = params[i]
        first, second, b1, b2 = p[:6].view(2, 3), p[6:8], p[8:10], p[10]
        for row in range(2):
            for column in range(3):
                x = centers[i, 0] - (column * 4 + 2)
                y = centers[i, 1] - (row * 4 + 2)
                seen = torch.stack((x / size, y / size, features[i, 0, row, column]))
                wanted = second @ (first @ seen + b1).relu() + b2
                assert last[i, 0, row, column].item() == pytest.approx(wanted.item(), rel=1e-4)
                wanted = p[11:14] @ seen + p[14]
                assert early[i, 0, row, column].item() == pytest.approx(wanted.item(), rel=1e-4)
    (only,) = head.eval()(features, params, centers, torch.tensor([0, 1]), stride=4)
    assert torch.equal(only, last)


def test_gradients_of_the_networks():
    head = DynamicMaskHead(2, 3, 3, (16.0, 32.0)).train()
    torch.manual_seed(0)
    values = [torch.randn(s, dtype=torch.float64) for s in ((2, 2, 2, 3), (2, head.num_params))]
    values.append(10 * torch.rand(2, 2, dtype=torch.float64))
    levels = torch.tensor([1, 0])
    assert torch.autograd.gradcheck(
        lambda *x: head(*x, levels, 8), [x.requires_grad_() for x in values]
    )


def test_branch_on_sides_that_are_no_multiples():
    """Coarse maps that reach past the finest are cut where it ends."""
    branch = MaskBranch(4, 8, 2, num_levels=3, num_convs=1, norm_cfg=None)
    torch.manual_seed(0)
    whole = [torch.randn(1, 4, n, n) for n in (16, 8, 4)]
    assert branch(whole).shape == (1, 2, 16, 16)
    cut = [whole[0][..., :13, :14], *whole[1:]]
    found = branch(cut)
    assert found.shape == (1, 2, 13, 14)
    # Away from the sides, which convolutions of the finest map see.
    torch.testing.assert_close(found[..., :10, :11], branch(whole)[..., :10, :11])


def test_centroids_by_hand():
    masks = torch.zeros(3, 6, 8)
    masks[0, 2:4, 1:5] = 1
    masks[1, 5, 7] = masks[1, 0, 0] = 1
    wanted = torch.tensor([[2.5, 2.5], [3.5, 2.5], [0, 0]])
    torch.testing.assert_close(find_centroids(masks), wanted)


def test_loss_of_masks_is_dice_of_the_middle_pixels():
    """With one positive, whose mask is drawn where the truth is, at every fourth pixel."""
    head = build()
    (sample,) = samples([[[40.0, 40, 200, 180]]], [[1]], masks=True)
    maps = features(1)
    *levels, params, branch = head(maps)
    losses = head.loss(maps, [sample])
    matches = head._learn(PointMaps(*levels), [sample.gt_instances], [sample.metainfo])[1]
    image, place = matches.assigned.nonzero(as_tuple=True)
    drawn = head._draw(PointMaps(*levels), params, branch, image, place)[-1].sigmoid()[:, 0]
    truth = torch.from_numpy(sample.gt_instances.masks.masks)[:, 2::4, 2::4].float()
    assert drawn.shape[1:] == truth.shape[1:] == (96, 96)
    dice = 2 * (drawn * truth).sum((1, 2)) / (drawn.square() + truth).sum((1, 2))
    assert losses["loss_mask_2"].item() == pytest.approx(1 - dice.mean().item(), rel=1e-4)


def test_masks_of_a_sure_network_cover_the_near_half():
    """A network that looks at the distance alone: pixels left of the object's centre."""
    head = build().eval()
    maps, (sample,) = features(1), samples(masks=True)[:1]
    head.controller.weight.data.zero_()
    head.controller.bias.data.zero_()
    # The first convolution copies the distance in x, the others pass on.
    for index in (0, 80, 144):
        head.controller.bias.data[index] = 50
    with torch.no_grad():
        (found,) = head.predict(maps, [sample])
    covered = found.masks.float().mean(1)  # share of each column
    assert ((covered == 0) | (covered == 1)).float().mean() > 0.95
    assert (covered.diff(dim=1) <= 0).all()  # none right of a column that is not covered


def test_polygons_are_drawn():
    head = build()
    found = samples(masks=True)
    boxes = [s.gt_instances.bboxes for s in found]
    for sample, box in zip(found, boxes, strict=True):
        corners = box[:, [0, 1, 2, 1, 2, 3, 0, 3]].double().numpy()
        sample.gt_instances.masks = PolygonMasks([[c] for c in corners], 384, 384)
    assert all(loss.isfinite() for loss in head.loss(features(), found).values())


def test_number_of_masks_is_limited(monkeypatch):
    head = build(max_masks=3)
    seen = []
    draw = head._draw
    monkeypatch.setattr(head, "_draw", lambda *args: seen.append(len(args[-1])) or draw(*args))
    head.loss(features(), samples(masks=True))
    assert seen == [3]


def test_a_batch_without_objects_teaches_every_parameter():
    head = build()
    losses = head.loss(features(side=96), samples([[], []], [[], []], 96, masks=True))
    sum(losses.values()).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert losses["loss_mask_2"] == 0


@pytest.mark.parametrize("side", [100, 61])
def test_sides_that_are_no_multiples_of_strides(side):
    head = build()
    found = samples([[[5.0, 9, 50, 44]], [[10.0, 2, 30, 40]]], [[1], [2]], side, masks=True)
    for sample in found:
        shape = (side, side)
        sample.set_metainfo(dict(img_shape=shape, pad_shape=shape, ori_shape=(2 * side, side)))
        sample.set_metainfo(dict(scale_factor=(1.0, 0.5)))
    maps = features(side=side)
    losses = head.loss(maps, found)
    assert all(loss.isfinite() for loss in losses.values()) and losses["loss_mask_2"] > 0
    with torch.no_grad():
        for rescale, shape in ((True, (2 * side, side)), (False, (side, side))):
            masks = head.eval().predict(maps, found, rescale=rescale)[0].masks
            assert len(masks) and masks.shape[1:] == shape


def test_nothing_found():
    head = build(test_cfg=ConfigDict(TEST_CFG, score_thr=0.99)).eval()
    with torch.no_grad():
        (found,) = head.predict(features(1), samples()[:1])
    assert found.masks.shape == (0, 384, 384)


def test_ground_truths_without_masks():
    with pytest.raises(ValueError, match="must have masks to learn, .* set with_mask=True"):
        build().loss(features(), samples())
