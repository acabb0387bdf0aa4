"""Multi-band images through loading, the libraries' own transforms, and both preprocessors."""

import mmcv
import mmdet.datasets.transforms  # noqa: F401
import mmseg.datasets.transforms  # noqa: F401
import numpy as np
import pytest
import tifffile
import torch
from mmdet.models.data_preprocessors import DetDataPreprocessor as MmdetDataPreprocessor
from mmengine.registry import MODELS, TRANSFORMS, DefaultScope

from swin_mm.datasets.bands import BandError
from swin_mm.datasets.reader import Reader
from swin_mm.datasets.transforms import LoadMultiBandImage, RandomBandGain

MEAN_OF_FOUR = [100.0, 110, 120, 130]


@pytest.fixture
def tiff(tmp_path):
    image = np.random.default_rng(0).integers(0, 60_000, (20, 30, 12)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="minisblack", planarconfig="contig")
    return str(tmp_path / "a.tif"), image


def test_loads_by_name_as_floats(tiff):
    path, image = tiff
    load = TRANSFORMS.build(dict(type="swin_mm.LoadMultiBandImage"))
    found = load(dict(img_path=path))
    assert found["img"].dtype == np.float32
    assert found["img_shape"] == found["ori_shape"] == (20, 30)
    np.testing.assert_array_equal(found["img"], image)


def test_bands_are_chosen_in_order_and_scaled(tiff):
    path, image = tiff
    load = LoadMultiBandImage(bands=(7, 0), value_range=(10_000, 40_000))
    expected = np.clip((image[..., [7, 0]] - 10_000.0) / 30_000 * 255, 0, 255)
    np.testing.assert_allclose(load(dict(img_path=path))["img"], expected, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(bands=()), "indices from 0 on"),
        (dict(bands=(0, -1)), "indices from 0 on"),
        (dict(value_range=(5, 5)), "low < high"),
    ],
    ids=["no bands", "negative band", "empty range"],
)
def test_arguments_without_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        LoadMultiBandImage(**arguments)


def test_a_lacking_band_is_named(tiff):
    with pytest.raises(BandError, match=r"a.tif has 12 bands, but bands=\[0, 12\]"):
        LoadMultiBandImage(bands=(0, 12))(dict(img_path=tiff[0]))


def test_missing_values_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.full((4, 4), np.nan, dtype=np.float32))
    with pytest.raises(BandError, match="not finite"):
        LoadMultiBandImage()(dict(img_path=tmp_path / "a.tif"))


GEOMETRY = {
    "mmdet": [
        dict(type="Resize", scale=(45, 40), keep_ratio=True),
        dict(type="RandomResize", scale=(64, 64), ratio_range=(0.5, 2.0), keep_ratio=True),
        dict(type="RandomChoiceResize", scales=[(40, 64)], keep_ratio=True),
        dict(type="RandomCrop", crop_size=(10, 12)),
        dict(type="RandomFlip", prob=1.0, direction="diagonal"),
        dict(type="Pad", size=(40, 50), pad_val=dict(img=0.0)),
    ],
    "mmseg": [
        dict(type="Resize", scale=(45, 40), keep_ratio=True),
        dict(type="RandomResize", scale=(64, 64), ratio_range=(0.5, 2.0), keep_ratio=True),
        dict(type="RandomCrop", crop_size=(10, 12), cat_max_ratio=0.75),
        dict(type="RandomFlip", prob=1.0),
        dict(type="Pad", size=(40, 50), pad_val=dict(img=0.0)),
    ],
}


@pytest.mark.parametrize("bands", [1, 4, 12])
@pytest.mark.parametrize(
    ("scope", "settings"),
    [(scope, settings) for scope, all_ in GEOMETRY.items() for settings in all_],
    ids=[f"{scope} {s['type']}" for scope, all_ in GEOMETRY.items() for s in all_],
)
def test_geometric_transforms_treat_every_band_alike(bands, scope, settings):
    """Each band must come out as it does when it is the only one."""
    DefaultScope.get_instance("test", scope_name=scope)
    transform = TRANSFORMS.build(settings)
    image = np.random.default_rng(0).random((20, 30, bands)).astype(np.float32)

    def run(pixels):
        np.random.seed(1)  # noqa: NPY002
        labels = np.zeros((20, 30), dtype=np.uint8)
        labels[5:9, 3:20] = 1
        sample = dict(img=pixels, img_shape=(20, 30), ori_shape=(20, 30), gt_seg_map=labels)
        sample["seg_fields"] = ["gt_seg_map"]
        return transform(sample)["img"]

    found = run(image).reshape(*run(image).shape[:2], bands)
    for band in range(bands):
        np.testing.assert_allclose(found[..., band], run(image[..., band].copy()), atol=1e-5)


def test_colour_distortion_of_twelve_bands_is_refused_by_its_library(tiff):
    """What `RandomBandGain` is for; if this no longer fails, say so in the module's docstring."""
    DefaultScope.get_instance("test", scope_name="mmdet")
    distort = TRANSFORMS.build(dict(type="PhotoMetricDistortion"))
    sample = LoadMultiBandImage()(dict(img_path=tiff[0]))
    with pytest.raises(Exception, match="channels|scn"):
        for _ in range(20):
            distort(sample)


def test_band_gain_scales_each_band_by_itself():
    image = np.full((3, 4, 12), 100, dtype=np.uint16)
    np.random.seed(0)  # noqa: NPY002
    found = RandomBandGain(strength=0.3, prob=1.0)(dict(img=image))["img"]
    gains = found[0, 0] / 100
    assert (found == found[0, 0]).all() and len(set(gains.tolist())) == 12
    assert 0.7 <= gains.min() < 1 < 1.15 < gains.max() <= 1.3
    assert RandomBandGain(prob=0.0)(dict(img=image))["img"] is image
    with pytest.raises(ValueError, match="strength"):
        RandomBandGain(strength=1.0)


def test_pictures_show_the_bands_that_the_pipeline_names(tiff, tmp_path):
    path, image = tiff

    class Dataset:
        class pipeline:
            transforms = [LoadMultiBandImage(bands=(11, 5, 2, 0), picture_bands=(0, 2, 1))]

    class Wrapper:
        dataset = Dataset

    expected = LoadMultiBandImage(bands=(11, 2, 5)).picture(path)
    np.testing.assert_array_equal(Reader.of(Wrapper).picture(path), expected)
    colour = np.random.default_rng(0).integers(0, 255, (5, 6, 3)).astype(np.uint8)
    mmcv.imwrite(colour, str(tmp_path / "c.png"))
    np.testing.assert_array_equal(Reader.of(None).picture(tmp_path / "c.png"), colour[..., ::-1])


def batch(bands):
    torch.manual_seed(0)
    return dict(inputs=[torch.rand(bands, 8, 10) * 255, torch.rand(bands, 6, 9) * 255])


@pytest.mark.parametrize("bands", [1, 4, 12])
def test_detectors_normalise_any_number_of_bands(bands):
    mean, std = [10.0 + b for b in range(bands)], [2.0 + b for b in range(bands)]
    settings = dict(type="swin_mm.DetDataPreprocessor", mean=mean, std=std, pad_size_divisor=4)
    found = MODELS.build(settings)(batch(bands))["inputs"]
    assert found.shape == (2, bands, 8, 12)
    for image, expected in zip(found, batch(bands)["inputs"], strict=True):
        height, width = expected.shape[1:]
        for band in range(bands):
            wanted = (expected[band] - mean[band]) / std[band]
            torch.testing.assert_close(image[band, :height, :width], wanted)
        assert image[:, height:].abs().sum() == 0


def test_three_bands_come_out_as_of_mmdet():
    settings = dict(mean=[1.0, 2, 3], std=[4.0, 5, 6], bgr_to_rgb=True, pad_size_divisor=32)
    ours = MODELS.build(dict(type="swin_mm.DetDataPreprocessor", **settings))(batch(3))
    theirs = MmdetDataPreprocessor(**settings)(batch(3))
    assert torch.equal(ours["inputs"], theirs["inputs"])


@pytest.mark.parametrize("kind", ["SegDataPreProcessor", "swin_mm.SegDataPreProcessor"])
def test_segmentors_normalise_four_bands(kind):
    DefaultScope.get_instance("test", scope_name="mmseg")
    settings = dict(type=kind, mean=MEAN_OF_FOUR, std=[2.0] * 4)
    data = dict(inputs=[torch.full((4, 8, 8), 100.0)])
    found = MODELS.build(settings)(data)["inputs"]
    assert found[0, :, 0, 0].tolist() == [0.0, -5, -10, -15]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(mean=MEAN_OF_FOUR), "a value for each band"),
        (dict(mean=MEAN_OF_FOUR, std=[1.0] * 3), "a value for each band"),
        (dict(mean=MEAN_OF_FOUR, std=[1.0, 1, 0, 1]), "std must be positive"),
        (dict(mean=MEAN_OF_FOUR, std=[1.0] * 4, bgr_to_rgb=True), "for three bands, not 4"),
    ],
    ids=["no std", "uneven", "constant band", "order of colours"],
)
def test_preprocessor_refuses(settings, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(dict(type="swin_mm.DetDataPreprocessor", **settings))


def test_an_image_of_other_bands_is_refused():
    model = MODELS.build(dict(type="swin_mm.DetDataPreprocessor", mean=MEAN_OF_FOUR, std=[1.0] * 4))
    with pytest.raises(ValueError, match="for 4 bands, an image has 1"):
        model(batch(1))
