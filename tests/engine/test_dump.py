"""What is kept of a segmentor's predictions."""

import numpy as np
import pytest
import torch

from swin_mm.engine.dump import DumpLabelMaps


@pytest.mark.parametrize("shape", [(1, 2, 3), (2, 3)], ids=["one view", "merged views"])
def test_a_label_map_of_each_image_is_kept(shape):
    metric = DumpLabelMaps("unused.pkl")
    labels = torch.arange(6).reshape(shape)
    metric.process({}, [dict(img_path="a.png", pred_sem_seg=dict(data=labels))])
    (entry,) = metric.results
    assert entry.keys() == {"img_path", "labels"} and entry["labels"].dtype == np.int16
    assert entry["labels"].tolist() == [[0, 1, 2], [3, 4, 5]]
