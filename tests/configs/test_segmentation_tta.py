"""Multi-scale and flip testing of the segmentation recipes."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DATASETS, MODELS
from recipe_tools import NAMES, build_small, load
from torch.nn import functional as F

RATIOS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


@pytest.mark.parametrize(
    "name", [n for n in NAMES if n.startswith(("upernet", "knet")) or n.endswith("_ade20k")]
)
def test_every_recipe_says_how(name):
    cfg = load(name)
    assert cfg.tta_model.type == "SegTTAModel"
    scales, flips, *_ = cfg.tta_pipeline[1].transforms
    assert len(scales) > 1 and [flip.prob for flip in flips] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("name", "test_side"),
    [("upernet_swin_t", 512), ("knet_swin_t", 512), ("mask2former_swin_b_ade20k", 640)],
)
@pytest.mark.parametrize(
    ("shape", "limit"), [((60, 80), 1), ((20, 200), 4)], ids=["by shorter side", "by longer side"]
)
def test_scales_are_ratios_of_the_size_in_plain_tests(name, test_side, shape, limit, tmp_path):
    """As published: not of the image's own size. The longer side is limited to four times that."""
    cv2.imwrite(str(tmp_path / "image.png"), np.zeros((*shape, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "labels.png"), np.full(shape, 7, np.uint8))
    cfg = load(name)
    views = Compose(cfg.tta_pipeline)(
        dict(
            img_path=str(tmp_path / "image.png"),
            seg_map_path=str(tmp_path / "labels.png"),
            reduce_zero_label=True,
            seg_fields=[],
        )
    )
    side = {1: min, 4: max}[limit]
    sides = [side(view.shape[1:]) for view in views["inputs"]]
    assert sides == [int(limit * test_side * ratio) for ratio in RATIOS for _ in range(2)]
    assert [sample.flip for sample in views["data_samples"]] == [False, True] * len(RATIOS)
    for sample in views["data_samples"]:  # labels keep the image's size, and start at 0
        assert sample.gt_sem_seg.data.shape == (1, *shape)
        assert (sample.gt_sem_seg.data == 6).all()


def test_views_are_averaged(tmp_path):
    """The prediction is that of the mean probability over views made and undone by hand."""
    torch.manual_seed(0)
    cfg = load("upernet_swin_mini_shapes")
    settings = cfg.test_dataloader.dataset
    settings.update(data_root=str(tmp_path / "tiny") + "/", pipeline=cfg.tta_pipeline)
    data = DATASETS.build(settings)
    model = build_small(cfg).eval()
    sample = data[0]
    with torch.no_grad():
        found, *_ = MODELS.build(dict(cfg.tta_model, module=model)).test_step(
            pseudo_collate([sample])
        )

    image = cv2.imread(data.get_data_info(0)["img_path"])[..., ::-1]
    height, width = image.shape[:2]
    total = torch.zeros(7, height, width)
    for ratio in (0.75, 1.0, 1.25):
        size = (int(width * ratio + 0.5), int(height * ratio + 0.5))
        view = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        for mirror in (False, True):
            pixels = torch.from_numpy((view[:, ::-1] if mirror else view).copy()).float()
            mean, std = torch.tensor([[123.675, 116.28, 103.53], [58.395, 57.12, 57.375]])
            inputs = ((pixels - mean) / std).permute(2, 0, 1)[None]
            meta = dict(img_shape=inputs.shape[2:], ori_shape=(height, width))
            with torch.no_grad():
                logits = model.encode_decode(inputs, [meta])
            logits = logits.flip(3) if mirror else logits
            logits = F.interpolate(logits, (height, width), mode="bilinear", align_corners=False)
            total += logits[0].softmax(0)
    assert len(sample["inputs"]) == 6
    agreement = (found.pred_sem_seg.data == total.argmax(0)).float().mean()
    assert agreement > 0.999  # ties aside
    assert len(total.argmax(0).unique()) > 1
    assert torch.equal(found.gt_sem_seg.data, sample["data_samples"][0].gt_sem_seg.data)
