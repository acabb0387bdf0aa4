"""What is kept of a segmentor's predictions."""

import numpy as np
import pytest
import torch

from swin_mm.engine.dump import DumpLabelMaps


def dump(logits, labels=None):
    logits = torch.as_tensor(logits)
    labels = logits.argmax(0, keepdim=True) if labels is None else labels
    metric = DumpLabelMaps("unused.pkl")
    sample = dict(img_path="a.png", pred_sem_seg=dict(data=labels), seg_logits=dict(data=logits))
    metric.process({}, [sample])
    (entry,) = metric.results
    return entry


def test_confidence_is_the_softmax_of_the_predicted_class():
    logits = torch.randn(5, 6, 7, generator=torch.Generator().manual_seed(0))
    entry = dump(logits)
    assert entry["labels"].dtype == np.int16 and entry["confidence"].dtype == np.uint8
    expected = (logits.exp() / logits.exp().sum(0)).max(0)
    assert np.array_equal(entry["labels"], expected.indices)
    np.testing.assert_allclose(entry["confidence"] / 255, expected.values, atol=0.5 / 255 + 1e-6)


def test_probabilities_are_taken_as_they_are():
    """Mask2Former's: they need not add up to 1, and overlapping queries may exceed it."""
    entry = dump([[[0.2, 0.9, 1.3]], [[0.1, 0.4, 0.0]]])
    assert entry["confidence"].tolist() == [[51, 230, 255]]


@pytest.mark.parametrize("kind", ["views", "none"])
def test_what_is_not_known_is_left_out(kind):
    logits = torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]]])
    if kind == "views":  # merged, they say otherwise than the last of them
        assert "confidence" not in dump(logits, torch.tensor([[1, 1]]))
    else:
        metric = DumpLabelMaps("unused.pkl")
        metric.process({}, [dict(img_path="a.png", pred_sem_seg=dict(data=torch.ones(1, 2, 2)))])
        assert metric.results[0].keys() == {"img_path", "labels"}


@pytest.mark.parametrize("scores", [[[[-2.0, 0.0, 3.0]]], [[[0.1192029, 0.5, 0.9525741]]]])
def test_confidence_of_one_channel(scores):
    """Of logits and of probabilities; the threshold is 0.4, so 0.5 is foreground."""
    entry = dump(scores, torch.tensor([[[0, 1, 1]]]))
    assert entry["labels"].tolist() == [[0, 1, 1]]
    assert entry["confidence"].tolist() == [[225, 128, 243]]
