"""Sliding windows against mmseg's, which takes one at a time."""

import copy
from pathlib import Path

import mmseg.models  # noqa: F401  (registers them)
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import nn

from swin_mm.heads.segmentors import encoder_decoder

CLASSES = 3


@MODELS.register_module()
class TwoConvs(nn.Module):
    """A backbone of stride 2 that counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.GELU(), nn.Conv2d(4, 4, 3, 1, 1))
        self.batches = []

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        self.batches.append(tuple(x.shape))
        return (self.convs(x),)


def build(type_: str, crop: tuple[int, int], stride: tuple[int, int], **test_cfg) -> nn.Module:
    init_default_scope("mmseg")
    head = dict(
        type="mmseg.FCNHead",
        in_channels=4,
        in_index=0,
        channels=4,
        num_convs=1,
        num_classes=CLASSES,
        norm_cfg=dict(type="BN"),
        loss_decode=dict(type="CrossEntropyLoss", avg_non_ignore=True),
    )
    test_cfg = {**dict(mode="slide", crop_size=crop, stride=stride), **test_cfg}
    cfg = dict(type=type_, backbone=dict(type="TwoConvs"), decode_head=head, test_cfg=test_cfg)
    return MODELS.build(ConfigDict(cfg)).eval()


def metas(number: int, size: tuple[int, int]) -> list[dict]:
    shapes = dict(img_shape=size, ori_shape=size, pad_shape=size, padding_size=[0] * 4)
    return [dict(shapes) for _ in range(number)]


CASES = {
    "overlapping": ((24, 37), (16, 16), (11, 10)),
    "exact": ((32, 16), (16, 8), (16, 8)),
    "one pixel over": ((17, 33), (16, 16), (16, 16)),
    "crop larger than the image": ((12, 40), (16, 16), (8, 8)),
    "crop as large as the image": ((16, 16), (16, 16), (8, 8)),
}


@pytest.mark.parametrize("number", [1, 2], ids=["one image", "two images"])
@pytest.mark.parametrize("per_batch", [1, 3, None, 100])
@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_mmseg(case, per_batch, number):
    size, crop, stride = CASES[case]
    extra = {} if per_batch is None else dict(windows_per_batch=per_batch)
    ours = build("swin_mm.EncoderDecoder", crop, stride, **extra)
    theirs = build("mmseg.EncoderDecoder", crop, stride)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    images = torch.randn(number, 3, *size)
    given = metas(number, size)
    with torch.no_grad():
        found = ours.inference(images, given)
        wanted = theirs.inference(images, copy.deepcopy(given))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    assert given == metas(number, size)  # not written to
    windows = len(theirs.backbone.batches)
    per_batch = per_batch or encoder_decoder.WINDOWS_PER_BATCH
    assert len(ours.backbone.batches) == -(-windows // per_batch)
    assert sum(shape[0] for shape in ours.backbone.batches) == number * windows


def test_every_window_has_the_meta_information_of_its_image(monkeypatch):
    """Heads with queries go through it."""
    model = build("swin_mm.EncoderDecoder", (8, 8), (4, 4), windows_per_batch=3)
    seen = []

    def encode_decode(inputs: torch.Tensor, given: list[dict]) -> torch.Tensor:
        seen.append([(meta["img_path"], meta["img_shape"]) for meta in given])
        return inputs

    monkeypatch.setattr(model, "encode_decode", encode_decode)
    given = [dict(meta, img_path=i) for i, meta in enumerate(metas(2, (8, 12)))]
    model.inference(torch.zeros(2, 3, 8, 12), given)
    assert seen == [[(0, torch.Size((8, 8))), (1, torch.Size((8, 8)))] * 2]


@pytest.mark.parametrize("windows", [0, -1])
def test_less_than_one_window_is_refused(windows):
    with pytest.raises(ValueError, match=f"windows_per_batch must be 1 or more, got {windows}"):
        build("swin_mm.EncoderDecoder", (8, 8), (4, 4), windows_per_batch=windows)


@pytest.mark.parametrize(
    ("crop", "stride", "message"),
    [
        ((16, 16), (16, 17), r"stride=\(16, 17\) is larger than crop_size=\(16, 16\).*\(10, 10\)"),
        ((16, 8), (9, 9), "is larger than crop_size"),
        (16, (8, 8), r"crop_size must be \(height, width\) in pixels .* got 16"),
        ((16, 16), None, "stride must be .* got None"),
        ((16, 16), (0, 8), r"stride must be .* got \(0, 8\)"),
    ],
)
def test_windows_that_leave_gaps_are_refused(crop, stride, message):
    with pytest.raises(ValueError, match=message):
        build("swin_mm.EncoderDecoder", crop, stride)
    model = build("swin_mm.EncoderDecoder", (8, 8), (4, 4))
    model.test_cfg.update(crop_size=crop, stride=stride)
    with pytest.raises(ValueError, match=message):
        model.inference(torch.zeros(1, 3, 40, 40), metas(1, (40, 40)))


def test_mode_that_does_not_exist():
    with pytest.raises(ValueError, match="mode must be 'whole' or 'slide', got 'sliding'"):
        build("swin_mm.EncoderDecoder", (8, 8), (4, 4), mode="sliding")


@pytest.mark.slow
@pytest.mark.parametrize("per_batch", [1, 3])
@pytest.mark.parametrize("head", ["Mask2FormerHead", "MaskFormerHead"])
def test_heads_that_predict_masks_slide(head, per_batch):
    """Averages of each window predicted as an image of its own."""
    model = build_mask_head(head)
    model.test_cfg = ConfigDict(
        mode="slide", crop_size=(64, 64), stride=(42, 42), windows_per_batch=per_batch
    )
    image = torch.randn(1, 3, 100, 130)
    given = [dict(metas(1, (100, 130))[0], batch_input_shape=(100, 130))]
    total, count = torch.zeros(1, CLASSES, 100, 130), torch.zeros(100, 130)
    with torch.no_grad():
        found = model.inference(image, given)
        for top in (0, 36):
            for left in (0, 42, 66):
                window = image[:, :, top : top + 64, left : left + 64]
                part = dict(metas(1, (64, 64))[0], batch_input_shape=(64, 64))
                total[:, :, top : top + 64, left : left + 64] += model.encode_decode(window, [part])
                count[top : top + 64, left : left + 64] += 1
    torch.testing.assert_close(found, total / count, rtol=1e-4, atol=1e-6)


def build_mask_head(head: str) -> nn.Module:
    """A small segmentor of a recipe, or with MaskFormer's head on the same."""
    init_default_scope("mmseg")
    path = Path(__file__).parents[3] / "configs/_base_/models/mask2former_swin_semantic.py"
    cfg = Config.fromfile(path).model
    cfg.backbone.update(embed_dims=8, depths=(1,) * 4, num_heads=(1,) * 4, init_cfg=None)
    cfg.decode_head.update(in_channels=[8, 16, 32, 64], num_classes=CLASSES, num_queries=5)
    cfg.decode_head.loss_cls.class_weight = [1.0] * CLASSES + [0.1]
    if head == "MaskFormerHead":
        layer = dict(
            self_attn_cfg=dict(embed_dims=16, num_heads=2, batch_first=True),
            ffn_cfg=dict(embed_dims=16, feedforward_channels=16),
        )
        decoder = dict(layer, cross_attn_cfg=dict(embed_dims=16, num_heads=2, batch_first=True))
        cfg.decode_head = dict(
            type=head,
            num_classes=CLASSES,
            in_channels=[8, 16, 32, 64],
            feat_channels=16,
            out_channels=16,
            num_queries=5,
            pixel_decoder=dict(
                type="mmdet.TransformerEncoderPixelDecoder",
                norm_cfg=dict(type="GN", num_groups=4),
                encoder=dict(num_layers=1, layer_cfg=layer),
                positional_encoding=dict(num_feats=8, normalize=True),
            ),
            positional_encoding=dict(num_feats=8, normalize=True),
            transformer_decoder=dict(num_layers=1, layer_cfg=decoder, return_intermediate=True),
            loss_cls=dict(type="mmdet.CrossEntropyLoss", class_weight=[1.0] * CLASSES + [0.1]),
            loss_mask=dict(type="mmdet.FocalLoss"),
            loss_dice=dict(type="mmdet.DiceLoss"),
        )
    torch.manual_seed(0)
    return MODELS.build(cfg).eval()


def views_of_one_image(number: int, flips: tuple) -> dict:
    size = dict(img_shape=(32, 64), ori_shape=(32, 64), img_path="a.png")
    samples = [
        SegDataSample(metainfo=dict(size, flip=bool(way), flip_direction=way)) for way in flips
    ]
    torch.manual_seed(number)
    image = torch.randn(3, 32, 64)
    dims = {None: (), "horizontal": (2,), "vertical": (1,)}
    return dict(
        inputs=[[image.flip(dims[way])] for way in flips], data_samples=[[s] for s in samples]
    )


def build_one_channel(type_: str) -> nn.Module:
    init_default_scope("mmseg")
    torch.manual_seed(0)
    model = MODELS.build(
        ConfigDict(
            type=type_,
            data_preprocessor=dict(type="mmseg.SegDataPreProcessor"),
            backbone=dict(type="TwoConvs"),
            decode_head=dict(
                type="mmseg.FCNHead",
                in_channels=4,
                in_index=0,
                channels=4,
                num_convs=1,
                norm_cfg=dict(type="BN"),
                num_classes=2,
                out_channels=1,
                threshold=0.4,
                loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=True),
            ),
            test_cfg=dict(mode="whole"),
        )
    ).eval()
    nn.init.normal_(model.decode_head.conv_seg.weight, std=4)
    nn.init.constant_(model.decode_head.conv_seg.bias, 0.4)
    return model


def test_labels_of_one_channel_are_those_of_mmseg():
    ours, theirs = map(build_one_channel, ("swin_mm.EncoderDecoder", "mmseg.EncoderDecoder"))
    data = dict(
        inputs=torch.randn(2, 3, 32, 64),
        data_samples=[SegDataSample(metainfo=meta) for meta in metas(2, (32, 64))],
    )
    with torch.no_grad():
        found, wanted = (model.test_step(copy.deepcopy(data)) for model in (ours, theirs))
    for one, other in zip(found, wanted, strict=True):
        assert one.pred_sem_seg.data.dtype == torch.int64
        assert 0.05 < one.pred_sem_seg.data.float().mean() < 0.95
        assert (one.pred_sem_seg.data == other.pred_sem_seg.data).all()
        torch.testing.assert_close(one.seg_logits.data.sigmoid(), other.seg_logits.data)


@pytest.mark.parametrize(
    ("model", "wrapper"),  # mmseg's own pair labels every pixel as foreground
    [
        ("swin_mm.EncoderDecoder", "swin_mm.SegTTAModel"),
        ("swin_mm.EncoderDecoder", "mmseg.SegTTAModel"),
        ("mmseg.EncoderDecoder", "swin_mm.SegTTAModel"),
    ],
)
def test_merged_views_of_one_channel(model, wrapper):
    module = build_one_channel(model)
    data = views_of_one_image(0, (None, "horizontal", "vertical"))
    merged = MODELS.build(dict(type=wrapper, module=module)).eval()
    with torch.no_grad():
        views = [
            module.test_step(dict(inputs=x, data_samples=copy.deepcopy(s)))[0]
            for x, s in zip(data["inputs"], data["data_samples"], strict=True)
        ]
        (found,) = merged.test_step(copy.deepcopy(data))
    is_ours = model.startswith("swin_mm")
    scores = [view.seg_logits.data for view in views]
    mean = sum(score.sigmoid() if is_ours else score for score in scores) / 3
    assert 0.02 < (mean > 0.4).float().mean() < 0.98
    assert (found.pred_sem_seg.data.squeeze() == (mean > 0.4).squeeze()).all()


def test_merged_views_of_a_head_that_predicts_masks():
    """Averages of what it predicts, which are probabilities already."""
    module = build_mask_head("Mask2FormerHead")
    module.test_cfg = ConfigDict(mode="whole")
    data = views_of_one_image(1, (None, "horizontal"))
    merged = MODELS.build(dict(type="swin_mm.SegTTAModel", module=module)).eval()
    with torch.no_grad():
        views = [
            module.test_step(dict(inputs=x, data_samples=copy.deepcopy(s)))[0]
            for x, s in zip(data["inputs"], data["data_samples"], strict=True)
        ]
        (found,) = merged.test_step(copy.deepcopy(data))
    mean = (views[0].seg_logits.data + views[1].seg_logits.data) / 2
    torch.testing.assert_close(found.seg_logits.data, mean)
    assert (found.pred_sem_seg.data == mean.argmax(dim=0)).all()


def test_whole_images_are_mmsegs():
    ours = build("swin_mm.EncoderDecoder", (8, 8), (4, 4))
    ours.test_cfg.mode = "whole"
    assert ours.inference(torch.zeros(1, 3, 9, 9), metas(1, (9, 9))).shape == (1, CLASSES, 9, 9)
    assert ours.backbone.batches == [(1, 3, 9, 9)]


def test_losses_of_narrow_label_maps_are_those_of_wide_ones():
    """So that mmseg's preprocessor serves label maps of `swin_mm.PackSegInputs` too."""
    model = build("swin_mm.EncoderDecoder", (8, 8), (8, 8))
    images, labels = torch.rand(2, 3, 16, 16), torch.randint(CLASSES, (2, 1, 16, 16))
    losses = []
    for dtype in (torch.uint8, torch.int64):
        samples = [SegDataSample(gt_sem_seg=PixelData(data=part.to(dtype))) for part in labels]
        losses.append(model.loss(images, samples)["decode.loss_ce"])
    assert losses[0] == losses[1] > 0
