"""Test-time augmentation of boxes and masks."""

import numpy as np
import pytest
import torch
from id_map_detector import IdMapDetector, as_image, score_of
from mmdet.datasets.transforms import PackDetInputs
from mmdet.models.test_time_augs import DetTTAModel
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData, PixelData

import swin_mm
from swin_mm.configs import find_config
from swin_mm.inference import roi_masks
from swin_mm.inference.mask_tta import MaskTTAModel

TTA = Config(dict(tta=dict(nms=dict(type="nms", iou_threshold=0.5), max_per_img=100))).tta
FLIPS = {None: (), "horizontal": (1,), "vertical": (0,), "diagonal": (0, 1)}
ALL = [(scale, flip) for scale in (1, 2) for flip in FLIPS]


def make_view(image, scale, flip):
    """What the pipeline makes of an image for one view."""
    pixels = np.flip(image.repeat(scale, axis=0).repeat(scale, axis=1), FLIPS[flip])
    return PackDetInputs()(
        {
            "img": np.ascontiguousarray(pixels),
            "img_id": 5,
            "ori_shape": image.shape[:2],
            "img_shape": pixels.shape[:2],
            "scale_factor": (scale, scale),
            "flip": flip is not None,
            "flip_direction": flip,
        }
    )


def predict(model, images, views):
    """Runs a model on views of images, collated as the data loader does it."""
    batch = []
    for image in images:
        packed = [make_view(image, *view) for view in views]
        batch.append({key: [view[key] for view in packed] for key in packed[0]})
    with torch.no_grad():
        return model.test_step(pseudo_collate(batch))


@pytest.fixture
def scene():
    """Map of object numbers, 30 x 40."""
    numbers = np.zeros((30, 40), dtype=np.uint8)
    numbers[2:9, 3:12] = 1
    numbers[4:6, 5:9] = 0  # a hole
    numbers[8:27, 15:22] = 2
    numbers[20:28, 24:39] = 3
    return numbers


class TestVote:
    """Any model: views vote on masks."""

    @pytest.mark.parametrize("view", ALL, ids=str)
    def test_every_view_is_brought_back(self, scene, view):
        """A detector that sees views as the image is, alone and beside the plain view."""
        for views in ([view], [(1, None), view]):
            (sample,) = predict(
                MaskTTAModel(module=IdMapDetector(), tta_cfg=TTA), [as_image(scene)], views
            )
            found = sample.pred_instances
            assert found.labels.tolist() == [1, 2, 0]
            assert torch.equal(found.scores, torch.tensor([score_of(n) for n in (1, 2, 3)]))
            assert found.bboxes.tolist() == [[3, 2, 12, 9], [15, 8, 22, 27], [24, 20, 39, 28]]
            assert found.masks.dtype == torch.bool
            assert np.array_equal(found.masks.numpy(), [scene == n for n in (1, 2, 3)])
            assert sample.img_id == 5

    def test_all_views_of_a_batch(self, scene):
        images = [as_image(scene), as_image(scene[:20].T.copy())]
        model = MaskTTAModel(module=IdMapDetector(), tta_cfg=TTA)
        samples = predict(model, images, ALL)
        for sample, image in zip(samples, images, strict=True):
            numbers = [n for n in (1, 2, 3) if (image == n).any()]
            masks = [image[..., 0] == n for n in numbers]
            assert np.array_equal(sample.pred_instances.masks.numpy(), masks)

    def test_weights_are_scores(self):
        """Three views of one object: pixels that the first, or the other two, give to it."""
        masks = torch.zeros(3, 1, 4, 4, dtype=torch.bool)
        masks[0, 0, :, :2] = True
        masks[1:, 0, :, 1:3] = True
        samples = []
        for mask, score in zip(masks, (0.9, 0.5, 0.3), strict=True):
            sample = make_view(np.zeros((4, 4, 3), np.uint8), 1, None)["data_samples"]
            sample.pred_instances = InstanceData(
                bboxes=torch.tensor([[0.0, 0, 4, 4]]),
                scores=torch.tensor([score]),
                labels=torch.tensor([0]),
                masks=mask,
            )
            samples.append(sample)
        (merged,) = MaskTTAModel(module=IdMapDetector(), tta_cfg=TTA).merge_preds([samples])
        # Columns get 0.9, 1.7, 0.8 and 0 of 1.7 votes.
        expected = torch.tensor([True, True, False, False]).expand(1, 4, 4)
        assert torch.equal(merged.pred_instances.masks, expected)

    def test_a_view_that_misses_an_object_has_no_vote(self, scene):
        class Blind(IdMapDetector):
            def _detect(self, numbers, meta, weight):
                found = super()._detect(numbers, meta, weight)
                return found[found.labels != 2] if len(self.sizes) > 1 else found

        model = MaskTTAModel(module=Blind(), tta_cfg=TTA)
        (sample,) = predict(model, [as_image(scene)], ALL[:3])
        assert np.array_equal(sample.pred_instances.masks[1].numpy(), scene == 2)

    def test_model_is_not_told_of_flips(self, scene):
        """HTC would turn its masks itself."""

        class Curious(IdMapDetector):
            def _detect(self, numbers, meta, weight):
                assert not meta["flip"] and meta["flip_direction"] is None
                return super()._detect(numbers, meta, weight)

        (sample,) = predict(
            MaskTTAModel(module=Curious(), tta_cfg=TTA), [as_image(scene)], [(1, "diagonal")]
        )
        assert np.array_equal(sample.pred_instances.masks[0].numpy(), scene == 1)

    def test_nothing_found(self):
        model = MaskTTAModel(module=IdMapDetector(), tta_cfg=TTA)
        (sample,) = predict(model, [np.zeros((6, 8, 3), np.uint8)], ALL)
        assert len(sample.pred_instances) == 0
        assert sample.pred_instances.masks.shape == (0, 6, 8)

    def test_panoptic_maps_are_refused(self):
        sample = make_view(np.zeros((6, 8, 3), np.uint8), 1, None)["data_samples"]
        sample.pred_panoptic_seg = PixelData(sem_seg=torch.zeros(1, 6, 8))
        with pytest.raises(ValueError, match="does not merge panoptic maps"):
            MaskTTAModel(module=IdMapDetector(), tta_cfg=TTA).merge_preds([[sample]])


def build(with_masks=True, cascade=False):
    """A narrow Mask R-CNN with random weights, or a cascade of two stages."""
    cfg = Config.fromfile(find_config("mask_rcnn_swin_mini_shapes"))
    model = cfg.model
    model.backbone.update(embed_dims=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2))
    model.neck.update(in_channels=[8, 16, 32, 64])
    model.test_cfg.rpn.update(max_per_img=30)
    model.test_cfg.rcnn.update(score_thr=0.02, max_per_img=12)
    if cascade:
        head = model.roi_head
        head.update(type="CascadeRoIHead", num_stages=2, stage_loss_weights=[1, 0.5])
        head.bbox_head = [dict(head.bbox_head), dict(head.bbox_head)]
        head.mask_head = [dict(head.mask_head), dict(head.mask_head)]
        model.type = "CascadeRCNN"
        model.train_cfg.rcnn = [model.train_cfg.rcnn] * 2
    if not with_masks:
        del model.roi_head["mask_head"], model.roi_head["mask_roi_extractor"]
        model.type = "FasterRCNN"
    init_default_scope("mmdet")
    torch.manual_seed(0)
    return MODELS.build(model).eval()


@pytest.fixture(scope="module", params=[False, True], ids=["mask-rcnn", "cascade"])
def detector(request):
    return build(cascade=request.param)


@pytest.fixture
def images():
    generator = np.random.default_rng(0)
    return [generator.integers(0, 255, (h, w, 3), dtype=np.uint8) for h, w in ((64, 96), (80, 72))]


class TestRoIMasks:
    """Mask R-CNN and cascades: masks of merged boxes, averaged."""

    @pytest.mark.slow
    def test_plain_view_alone_changes_nothing(self, detector, images):
        plain = detector.test_step(pseudo_collate([make_view(im, 1, None) for im in images]))
        model = MaskTTAModel(module=detector, tta_cfg=TTA)
        for ours, theirs in zip(predict(model, images, [(1, None)]), plain, strict=True):
            ours, theirs = ours.pred_instances, theirs.pred_instances
            assert len(ours) == 12
            torch.testing.assert_close(ours.bboxes, theirs.bboxes)
            torch.testing.assert_close(ours.scores, theirs.scores)
            assert torch.equal(ours.masks, theirs.masks)

    @pytest.mark.slow
    def test_masks_against_mmdet_view_by_view(self, detector, images):
        """The oracle: what mmdet pastes for the merged boxes in each view, in 256 steps."""
        views = [(1, None), (2, "horizontal"), (1, "vertical"), (2, "diagonal")]
        samples = predict(MaskTTAModel(module=detector, tta_cfg=TTA), images, views)
        head = detector.roi_head
        threshold, head.test_cfg.mask_thr_binary = head.test_cfg.mask_thr_binary, -1
        total = [0, 0]
        for view in views:
            data = [make_view(image, *view) for image in images]
            data = detector.data_preprocessor(pseudo_collate(data), False)
            metas = [sample.metainfo for sample in data["data_samples"]]
            boxes = []
            for sample, meta in zip(samples, metas, strict=True):
                height, width = meta["ori_shape"]
                x1, y1, x2, y2 = sample.pred_instances.bboxes.unbind(1)
                if view[1] in ("horizontal", "diagonal"):
                    x1, x2 = width - x2, width - x1
                if view[1] in ("vertical", "diagonal"):
                    y1, y2 = height - y2, height - y1
                found = InstanceData(bboxes=torch.stack([x1, y1, x2, y2], 1) * view[0])
                found.labels = sample.pred_instances.labels
                boxes.append(found)
            with torch.no_grad():
                features = detector.extract_feat(data["inputs"])
                for meta in metas:
                    meta.update(flip=False)  # a cascade would turn the masks, and fail
                pasted = head.predict_mask(features, metas, boxes, rescale=True)
            for i, found in enumerate(pasted):
                total[i] += np.flip(found.masks.numpy(), [1 + d for d in FLIPS[view[1]]]) / 255.0
        head.test_cfg.mask_thr_binary = threshold
        for sample, mean in zip(samples, total, strict=True):
            mean = mean / len(views)
            sure = np.abs(mean - threshold) > 1 / 255
            masks = sample.pred_instances.masks.numpy()
            assert masks.shape == mean.shape and sure.mean() > 0.9
            assert 0.01 < masks.mean() < 0.9
            assert np.array_equal(masks[sure], (mean >= threshold)[sure])

    @pytest.mark.slow
    def test_boxes_are_those_of_mmdet(self, images):
        """The same weights without the mask head, in mmdet's own class."""
        whole, bare = build(), build(with_masks=False)
        bare.load_state_dict(whole.state_dict(), strict=False)
        ours = predict(MaskTTAModel(module=whole, tta_cfg=TTA), images, ALL)
        theirs = predict(DetTTAModel(module=bare, tta_cfg=TTA), images, ALL)
        for one, other in zip(ours, theirs, strict=True):
            for key in ("bboxes", "scores", "labels"):
                torch.testing.assert_close(one.pred_instances[key], other.pred_instances[key])

    def test_nothing_found(self, detector, images, monkeypatch):
        monkeypatch.setitem(detector.roi_head.test_cfg, "score_thr", 1.0)
        for sample in predict(MaskTTAModel(module=detector, tta_cfg=TTA), images, ALL[:3]):
            assert sample.pred_instances.masks.shape == (0, *sample.ori_shape)


def test_model_without_masks_is_as_in_mmdet(images):
    detector = build(with_masks=False)
    ours = predict(MaskTTAModel(module=detector, tta_cfg=TTA), images, ALL)
    theirs = predict(DetTTAModel(module=detector, tta_cfg=TTA), images, ALL)
    for one, other in zip(ours, theirs, strict=True):
        assert one.pred_instances.keys() == other.pred_instances.keys()
        for key in one.pred_instances.keys():  # noqa: SIM118  (not a dict)
            assert torch.equal(one.pred_instances[key], other.pred_instances[key])


def test_heads_with_their_own_masks_vote(detector):
    """HTC's masks need its semantic branch, so they are not predicted for given boxes."""
    assert roi_masks.predicts_roi_masks(detector)
    assert not roi_masks.predicts_roi_masks(build(with_masks=False))
    assert not roi_masks.predicts_roi_masks(IdMapDetector())
    head = type("Own", (type(detector.roi_head),), {"predict_mask": lambda self: None})
    detector.roi_head.__class__, before = head, type(detector.roi_head)
    assert not roi_masks.predicts_roi_masks(detector)
    detector.roi_head.__class__ = before


def test_found_by_name():
    assert swin_mm.MaskTTAModel is MaskTTAModel
