"""The sampled sets of all images at once are mmdet's, image by image, from the same seed."""

import pytest
import torch
from mmdet.models.task_modules import AssignResult, RandomSampler
from mmengine.structures import InstanceData

from swin_mm.heads.ops.sample import sample_randomly

# num, pos_fraction, neg_pos_ub
SETTINGS = {
    "rpn": (16, 0.5, -1),
    "few-positives": (16, 0.25, -1),
    "no-positives": (16, 0.0, -1),
    "only-positives": (16, 1.0, -1),
    "bounded-negatives": (32, 0.25, 2),
    "fraction-of-negatives": (32, 0.25, 0.5),
    "no-negatives": (16, 0.5, 0),
    "more-than-there-are": (1000, 0.5, -1),
}
# Share of boxes of a ground truth, and of the background, in each image.
SHARES = {
    "plenty": [(0.4, 0.4), (0.3, 0.6)],
    "one-image": [(0.2, 0.5)],
    "scarce": [(0.02, 0.9), (0.0, 1.0), (0.0, 0.0), (0.9, 0.02)],
}


def draw_assigned(shares, num_boxes=150):
    draws = torch.rand(len(shares), num_boxes)
    shares = torch.tensor(shares)
    assigned = torch.full(draws.shape, -1)
    assigned[draws < shares.sum(1, keepdim=True)] = 0
    of_object = draws < shares[:, :1]
    assigned[of_object] = torch.randint(1, 9, (int(of_object.sum()),))
    return assigned


def sample_one_by_one(assigned, num, pos_fraction, neg_pos_ub):
    sampler = RandomSampler(num, pos_fraction, neg_pos_ub, add_gt_as_proposals=False)
    priors = torch.zeros(assigned.shape[1], 4)
    gts = InstanceData(bboxes=torch.zeros(8, 4), labels=torch.zeros(8, dtype=torch.long))
    found = []
    for image in assigned:
        result = AssignResult(8, image, torch.zeros(len(image)), labels=image.clone())
        found.append(sampler.sample(result, InstanceData(priors=priors), gts))
    return found


@pytest.mark.parametrize("shares", SHARES.values(), ids=SHARES)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_samples_as_mmdet(settings, shares):
    assigned = draw_assigned(shares)
    torch.manual_seed(1)
    wanted = sample_one_by_one(assigned, *settings)
    next_number = torch.rand(1)
    torch.manual_seed(1)
    chosen = sample_randomly(assigned, *settings)
    assert torch.rand(1) == next_number  # as many random numbers were drawn
    index, image = [], []
    for number, found in enumerate(wanted):
        index += [*found.pos_inds.tolist(), *found.neg_inds.tolist()]
        image += [number] * (len(found.pos_inds) + len(found.neg_inds))
    assert chosen.index.tolist() == index
    assert chosen.image.tolist() == image
    assert chosen.num_pos == [len(found.pos_inds) for found in wanted]
    assert chosen.num_neg == [len(found.neg_inds) for found in wanted]
    is_positive = assigned[chosen.image, chosen.index] > 0
    assert torch.equal(chosen.positive, is_positive.nonzero().squeeze(1))


def test_nothing_to_sample_from():
    chosen = sample_randomly(torch.empty(2, 0, dtype=torch.long), 16, 0.5)
    assert chosen.num_pos == chosen.num_neg == [0, 0]
    assert len(chosen.index) == len(chosen.image) == len(chosen.positive) == 0
