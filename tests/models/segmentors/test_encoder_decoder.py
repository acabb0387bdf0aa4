"""Sliding windows against mmseg's, which takes one at a time."""

import copy

import mmseg.models  # noqa: F401  (registers them)
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import nn

from swin_mm.models.segmentors import encoder_decoder

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
    test_cfg = dict(mode="slide", crop_size=crop, stride=stride, **test_cfg)
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
def test_no_windows(windows):
    model = build("swin_mm.EncoderDecoder", (8, 8), (4, 4), windows_per_batch=windows)
    with pytest.raises(ValueError, match=f"windows_per_batch must be 1 or more, got {windows}"):
        model.inference(torch.zeros(1, 3, 9, 9), metas(1, (9, 9)))


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
