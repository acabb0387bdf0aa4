"""mmdet's geometric transforms on masks of every type, and on polygons."""

import numpy as np
import pytest
from mmdet.datasets.transforms import Rotate
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks, PolygonMasks

HEIGHT, WIDTH = 40, 60
BOX = (10, 8, 30, 20)  # x1, y1, x2, y2


def rectangle(dtype):
    masks = np.zeros((1, HEIGHT, WIDTH), dtype)
    masks[:, BOX[1] : BOX[3], BOX[0] : BOX[2]] = 1
    return BitmapMasks(masks, HEIGHT, WIDTH)


CHANGES = {
    "rescale": lambda masks: masks.rescale((2 * WIDTH, 2 * HEIGHT)),
    "resize": lambda masks: masks.resize((30, 90)),
    "rotate": lambda masks: masks.rotate((HEIGHT, WIDTH), 30),
    "shear": lambda masks: masks.shear((HEIGHT, WIDTH), 0.3),
    "translate": lambda masks: masks.translate((HEIGHT, WIDTH), 7),
    "flip": lambda masks: masks.flip(),
    "pad": lambda masks: masks.pad((64, 64)),
    "crop": lambda masks: masks.crop(np.array([5, 5, 25, 25])),
    "expand": lambda masks: masks.expand(80, 90, 3, 4),
}


@pytest.mark.parametrize("dtype", [bool, np.int64, np.int32])
@pytest.mark.parametrize("name", CHANGES)
def test_every_type_as_uint8(name, dtype):
    wanted = CHANGES[name](rectangle(np.uint8))
    found = CHANGES[name](rectangle(dtype))
    assert (found.height, found.width) == (wanted.height, wanted.width)
    np.testing.assert_array_equal(found.masks, wanted.masks)
    assert wanted.masks.any()


@pytest.mark.parametrize("seed", range(3))
def test_rotated_polygons_stay_on_their_object(seed):
    np.random.seed(seed)  # noqa: NPY002
    x1, y1, x2, y2 = BOX
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[y1:y2, x1:x2] = 255
    results = Rotate(prob=1.0, img_border_value=0)(
        {
            "img": image,
            "img_shape": (HEIGHT, WIDTH),
            "gt_bboxes": HorizontalBoxes(np.array([BOX], np.float32)),
            "gt_masks": PolygonMasks(
                [[np.array([x1, y1, x2, y1, x2, y2, x1, y2], float)]], HEIGHT, WIDTH
            ),
        }
    )
    content = results["img"][..., 0] > 127
    mask = results["gt_masks"].to_ndarray()[0].astype(bool)
    assert (content & mask).sum() > 0.9 * (content | mask).sum()
