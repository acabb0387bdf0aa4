from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from swin_mm.datasets import picture
from swin_mm.datasets.picture import (
    Row,
    draw_large,
    prediction_sheet,
    sample_sheet,
)
from swin_mm.structures import Objects, to_runs

CLASSES = ("cat", "dog")
PALETTE = ((255, 0, 0), (0, 0, 255))
RED, BLUE, GREY = (255, 0, 0), (0, 0, 255), (128, 128, 128)


@pytest.fixture
def row() -> Row:
    """A grey image: a cat in its upper left, for the prediction also a dog in its lower right."""
    image = np.full((40, 40, 3), 128, dtype=np.uint8)
    masks = np.zeros((2, 40, 40), dtype=bool)
    masks[0, 5:20, 5:20] = masks[1, 25:38, 25:38] = True
    boxes = np.array([[5, 5, 20, 20], [25, 25, 38, 38]])
    truth = Objects(np.array([0]), boxes[:1], masks=to_runs(masks[:1]))
    found = Objects(np.array([0, 1]), boxes, np.array([0.3, 0.9]), to_runs(masks))
    return Row(image, truth, found)


def panel(path, line: int, column: int, columns: int, titled: bool = True) -> np.ndarray:
    """Cuts one picture of 40 x 40 pixels out of a sheet, scaled back to that size."""
    sheet = np.asarray(Image.open(path).convert("RGB"))
    gap = picture.GROUP_GAP * (column // 2 if titled else 0)
    left = (column * picture.CELL + gap + picture.MARGIN / 2) * picture.DPI
    top = (picture.TITLE * titled + line * picture.CELL + picture.MARGIN / 2) * picture.DPI
    side = (picture.CELL - picture.MARGIN) * picture.DPI
    cut = sheet[round(top) : round(top + side), round(left) : round(left + side)]
    return np.asarray(Image.fromarray(cut).resize((40, 40), Image.Resampling.BOX)).astype(int)


def tinted(colour, opacity=picture.MASK_OPACITY):
    return (1 - opacity) * np.array(GREY) + opacity * np.array(colour)


def test_masks_are_tinted_where_they_lie(tmp_path, row):
    path = tmp_path / "new folder" / "sheet.png"
    prediction_sheet([row], path, CLASSES, PALETTE)
    truth, prediction = panel(path, 0, 0, 2), panel(path, 0, 1, 2)
    np.testing.assert_allclose(truth[14, 14], tinted(RED), atol=6)
    np.testing.assert_allclose(truth[31, 31], GREY, atol=3)
    np.testing.assert_allclose(prediction[31, 31], tinted(BLUE), atol=6)
    # The cat was found with too low a score.
    np.testing.assert_allclose(prediction[14, 14], GREY, atol=3)


def test_low_scores_are_shown_if_asked(tmp_path, row):
    prediction_sheet([row], tmp_path / "a.png", CLASSES, PALETTE, min_score=0.2)
    np.testing.assert_allclose(panel(tmp_path / "a.png", 0, 1, 2)[14, 14], tinted(RED), atol=6)


def test_label_maps(tmp_path, row):
    labels = np.zeros((40, 40), dtype=np.uint8)
    labels[:, 20:] = 1
    labels[:10] = 255
    prediction_sheet([Row(row.image, labels, 1 - labels % 2)], tmp_path / "a.png", CLASSES, PALETTE)
    truth, prediction = (panel(tmp_path / "a.png", 0, column, 2) for column in (0, 1))
    np.testing.assert_allclose(truth[30, 5], tinted(RED, picture.MAP_OPACITY), atol=3)
    np.testing.assert_allclose(truth[30, 35], tinted(BLUE, picture.MAP_OPACITY), atol=3)
    np.testing.assert_allclose(truth[3, 35], GREY, atol=3)  # 255: no label
    np.testing.assert_allclose(prediction[30, 5], tinted(BLUE, picture.MAP_OPACITY), atol=3)


@pytest.mark.parametrize(
    ("count", "pairs", "columns", "lines"),
    [(1, 3, 2, 1), (2, 1, 2, 2), (5, 2, 4, 3), (12, 3, 6, 4)],
)
def test_a_sheet_has_a_cell_for_each_picture(tmp_path, row, count, pairs, columns, lines):
    prediction_sheet([row] * count, tmp_path / "a.png", CLASSES, PALETTE, pairs=pairs)
    width, height = Image.open(tmp_path / "a.png").size
    wide = columns * picture.CELL + (columns // 2 - 1) * picture.GROUP_GAP
    high = lines * picture.CELL + picture.TITLE + picture.LEGEND_LINE
    assert (width, height) == pytest.approx((wide * picture.DPI, high * picture.DPI), abs=1)
    last = panel(tmp_path / "a.png", lines - 1, (2 * count - 1) % columns, columns)
    np.testing.assert_allclose(last[31, 31], tinted(BLUE), atol=6)


def test_bare_samples_have_no_legend(tmp_path, row):
    sample_sheet([(row.image, None)] * 3, tmp_path / "a.png", CLASSES, PALETTE, columns=2)
    width, height = Image.open(tmp_path / "a.png").size
    assert (width, height) == pytest.approx((2 * picture.CELL * picture.DPI,) * 2, abs=1)
    np.testing.assert_allclose(
        panel(tmp_path / "a.png", 1, 0, 2, titled=False), np.full((40, 40, 3), 128), atol=2
    )


def test_images_without_objects(tmp_path, row):
    nothing = Objects(np.zeros(0, int), np.zeros((0, 4)), masks=[])
    prediction_sheet([Row(row.image, nothing, nothing)], tmp_path / "a.png", CLASSES, PALETTE)
    np.testing.assert_allclose(panel(tmp_path / "a.png", 0, 0, 2)[14, 14], GREY, atol=2)


def test_tags_stay_in_the_picture(row):
    figure = picture.Figure(figsize=(picture.CELL, picture.CELL))
    for box in ([-5, -5, 10, 10], [35, 0, 60, 10], [38, 38, 40, 40]):
        axes = figure.add_axes((0, 0, 1, 1))
        corner = Objects(np.array([1]), np.array([box]), scores=np.array([0.5]))
        picture._draw_panel(axes, row.image, corner, CLASSES, [(1, 0, 0), (0, 0, 1)])
        tag = axes.texts[0]
        assert tag.get_text() == "dog 50"
        extent = tag.get_window_extent().transformed(axes.transData.inverted())
        assert -0.6 <= extent.x0 < extent.x1 < 40 and -0.6 < extent.y1 < extent.y0 < 40


def test_bad_input_is_refused(tmp_path, row):
    path = tmp_path / "a.png"
    with pytest.raises(ValueError, match="at least one picture"):
        prediction_sheet([], path, CLASSES, PALETTE)
    with pytest.raises(ValueError, match="2 classes need as many colours, got 1"):
        prediction_sheet([row], path, CLASSES, PALETTE[:1])
    with pytest.raises(ValueError, match="labels must be indices of the 1 classes, got 1 to 1"):
        prediction_sheet([row], path, CLASSES[:1], PALETTE[:1])
    with pytest.raises(ValueError, match=r"masks of \(40, 40\) pixels do not fit an image of \(30"):
        prediction_sheet([replace(row, image=row.image[:30])], path, CLASSES, PALETTE)
    with pytest.raises(ValueError, match=r"must be \(H, W, 3\) uint8, got .* float64"):
        sample_sheet([(row.image / 255, None)], path, CLASSES, PALETTE)
    assert not path.exists()


def test_large_picture_has_the_size_of_its_image(tmp_path):
    rows, columns = np.mgrid[:90, :130]
    image = np.stack([rows, columns, 0 * rows], axis=2).astype(np.uint8)
    path = tmp_path / "new" / "a.png"
    draw_large(image, None, path, ["circle"], [(255, 0, 0)])
    drawn = np.array(Image.open(path).convert("RGB")).astype(int)
    assert drawn.shape == image.shape
    assert np.abs(drawn - image).max() <= 2
    mask = np.zeros((1, 90, 130), bool)
    mask[0, 20:60, 30:90] = True
    draw_large(image, Objects(np.array([0]), masks=to_runs(mask)), path, ["circle"], [(255, 0, 0)])
    drawn = np.array(Image.open(path).convert("RGB")).astype(int)
    changed = np.abs(drawn - image).max(axis=2) > 10
    assert changed[24:56, 34:86].all() and not changed[:15].any() and not changed[:, 100:].any()


@pytest.mark.parametrize("side", [1, 4, 8, 12, 20])
def test_pictures_with_fewer_pixels_than_a_letter(tmp_path, side):
    image, path = np.zeros((side, side, 3), np.uint8), tmp_path / "large.png"
    box = Objects(np.array([0]), boxes=np.array([[0.0, 0, side, side]]))
    draw_large(image, box, path, ["circle"], [(255, 0, 0)])
    assert Image.open(path).size == (side, side)
    labels = np.zeros((side, side), int)
    draw_large(image, labels, path, ["circle"], [(255, 0, 0)], legend=True)
    width, height = Image.open(path).size
    assert width == side and height >= side


@pytest.mark.parametrize("size", [(90, 130), (900, 1300)], ids=str)
def test_large_map_has_a_legend_below_an_unchanged_picture(tmp_path, size):
    image = np.full((*size, 3), 90, dtype=np.uint8)
    labels = np.full(size, 255)
    labels[: size[0] // 2] = 2
    labels[:, : size[1] // 4] = 1
    palette = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    path = tmp_path / "new" / "a.png"
    draw_large(
        image, labels, path, ["circle", "a class of a very long name", "c"], palette, legend=True
    )
    drawn = np.array(Image.open(path).convert("RGB")).astype(int)
    assert drawn.shape[1] == size[1] and drawn.shape[0] > size[0]
    assert np.abs(drawn[size[0] * 3 // 4, size[1] // 2] - 90).max() <= 1  # no label
    assert drawn[size[0] // 4, size[1] // 2, 2] > 150 > drawn[size[0] // 4, size[1] // 2, 0]
    below = drawn[size[0] :]
    found = [(np.abs(below - colour).max(-1) < 3).sum() for colour in palette]
    assert found[0] == 0 and min(found[1:]) > 20  # of classes that occur alone
    if size[1] > 1000:  # entries stand beside one another where there is room
        assert len({np.nonzero((below == colour).all(-1))[0].min() for colour in palette[1:]}) == 1


def test_large_map_of_nothing_has_no_legend(tmp_path):
    image = np.zeros((90, 130, 3), dtype=np.uint8)
    draw_large(
        image, np.full((90, 130), 255), tmp_path / "a.png", ["a"], [(255, 0, 0)], legend=True
    )
    assert Image.open(tmp_path / "a.png").size == (130, 90)


def test_large_map_names_the_largest_classes(tmp_path, monkeypatch):
    monkeypatch.setattr("swin_mm.datasets.picture.MAX_LEGEND", 1)
    labels = np.zeros((90, 130), dtype=np.int64)
    labels[20:] = 1
    palette = [(255, 0, 0), (0, 255, 0)]
    draw_large(
        np.zeros((90, 130, 3), np.uint8), labels, tmp_path / "a.png", "ab", palette, legend=True
    )
    below = np.array(Image.open(tmp_path / "a.png").convert("RGB"))[90:]
    assert (below == palette[1]).all(-1).any() and not (below == palette[0]).all(-1).any()
