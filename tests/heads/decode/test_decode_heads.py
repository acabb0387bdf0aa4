"""UPerNet's heads against mmseg's: state dict, maps, losses, gradients and what is kept."""

import copy
import logging
import warnings

import mmseg.models  # noqa: F401  (registers them)
import pytest
import torch
from host_reads import HostReads
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

CHANNELS = (8, 12, 16, 20)
NUM_CLASSES = 5
SIZE = (37, 50)
CROSS_ENTROPY = dict(type="mmseg.CrossEntropyLoss", use_sigmoid=False, loss_weight=0.7)


def configs(name: str, **kwargs) -> dict:
    per_level = dict(
        UPerHead=dict(in_channels=CHANNELS, in_index=[0, 1, 2, 3], pool_scales=(1, 2)),
        FCNHead=dict(in_channels=CHANNELS[2], in_index=2, num_convs=1, concat_input=False),
    )
    return dict(
        type=name,
        channels=6,
        num_classes=NUM_CLASSES,
        norm_cfg=dict(type="BN"),
        dropout_ratio=0.0,
        loss_decode=CROSS_ENTROPY,
        **per_level[name],
    ) | dict(kwargs)


def build_pair(name: str, **kwargs) -> tuple[torch.nn.Module, torch.nn.Module]:
    init_default_scope("mmseg")
    cfg = configs(name, **kwargs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of mmseg, about avg_non_ignore
        ours = MODELS.build({**cfg, "type": f"swin_mm.{name}"})
        theirs = MODELS.build({**cfg, "type": f"mmseg.{name}"})
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours, theirs


def data(ignored: float = 0.2, num_classes: int = NUM_CLASSES) -> tuple[list, list]:
    maps = [
        torch.randn(2, width, -(-SIZE[0] // stride), -(-SIZE[1] // stride))
        for width, stride in zip(CHANNELS, (4, 8, 16, 32), strict=True)
    ]
    labels = torch.randint(0, num_classes, (2, 1, *SIZE))
    labels[torch.rand(labels.shape) < ignored] = 255
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]
    return maps, samples


def losses_and_gradients(head, maps, samples) -> tuple[dict, list]:
    maps = [x.clone().requires_grad_() for x in maps]
    losses = head.loss(maps, samples, train_cfg={})
    sum(value for key, value in losses.items() if "loss" in key).sum().backward()
    gradients = [x.grad for x in [*maps, *head.parameters()] if x.grad is not None]
    return {key: value.detach() for key, value in losses.items()}, gradients


WEIGHTS = [0.5, 2.0, 1.0, 0.1, 3.0]
ARGUMENTS = {
    "plain": dict(),
    "align_corners": dict(align_corners=True),
    "not ignored in mean": dict(loss_decode=CROSS_ENTROPY | dict(avg_non_ignore=True)),
    "sum": dict(loss_decode=CROSS_ENTROPY | dict(reduction="sum", loss_name="loss_x")),
    "list of one": dict(loss_decode=[CROSS_ENTROPY]),
    "class weights, a class ignored": dict(
        loss_decode=CROSS_ENTROPY | dict(class_weight=WEIGHTS), ignore_index=3
    ),
    "class weights, not ignored in mean": dict(
        loss_decode=CROSS_ENTROPY | dict(class_weight=WEIGHTS, avg_non_ignore=True),
        ignore_index=0,
    ),
}
LEFT_TO_MMSEG = {
    "two losses": dict(loss_decode=[CROSS_ENTROPY, dict(type="mmseg.DiceLoss")]),
    "another loss": dict(loss_decode=dict(type="mmseg.DiceLoss")),
    "sigmoid": dict(loss_decode=dict(type="mmseg.CrossEntropyLoss", use_sigmoid=True)),
    "none": dict(loss_decode=CROSS_ENTROPY | dict(reduction="none")),
    "sampler": dict(sampler=dict(type="OHEMPixelSampler", thresh=0.7, min_kept=100)),
    "none ignored": dict(ignore_index=None),
}


def compare(name: str, arguments: dict, maps: list, samples: list) -> None:
    ours, theirs = build_pair(name, **arguments)
    found, gradients = losses_and_gradients(ours, maps, samples)
    wanted, wanted_gradients = losses_and_gradients(theirs, maps, samples)
    assert list(found) == list(wanted)
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-6)
    for gradient, wanted_gradient in zip(gradients, wanted_gradients, strict=True):
        atol = 1e-6 * max(1.0, float(wanted_gradient.abs().max()))
        torch.testing.assert_close(gradient, wanted_gradient, rtol=1e-4, atol=atol)


@pytest.mark.parametrize("name", ["UPerHead", "FCNHead"])
@pytest.mark.parametrize("case", ARGUMENTS)
def test_losses_and_gradients_are_those_of_mmseg(name, case):
    # With weights mmseg takes no label that is no class.
    compare(name, ARGUMENTS[case], *data(ignored=0 if "weights" in case else 0.2))


@pytest.mark.parametrize("case", LEFT_TO_MMSEG)
def test_what_is_left_to_mmseg(case):
    arguments = LEFT_TO_MMSEG[case]
    ours, _ = build_pair("FCNHead", **arguments)
    assert ours._why_mmseg(torch.zeros(1, NUM_CLASSES, 2, 2))
    if case != "none ignored":  # mmseg's accuracy is all that takes it
        compare("FCNHead", arguments, *data())


def test_all_pixels_ignored():
    compare("FCNHead", {}, *data(ignored=1.0))


def test_ignored_labels_that_are_no_class_weigh_nothing():
    """mmseg fails there."""
    maps, samples = data()
    arguments = dict(loss_decode=CROSS_ENTROPY | dict(class_weight=WEIGHTS))
    ours, theirs = build_pair("FCNHead", **arguments)
    with pytest.raises(IndexError):
        theirs.loss(maps, samples, train_cfg={})
    found = ours.loss(maps, samples, train_cfg={})["loss_ce"]
    logits = torch.nn.functional.interpolate(ours(maps), SIZE, mode="bilinear")
    labels = torch.cat([sample.gt_sem_seg.data for sample in samples])
    mean = torch.nn.functional.cross_entropy(
        logits, labels, torch.tensor(WEIGHTS), ignore_index=255
    )
    torch.testing.assert_close(found, 0.7 * mean)


def count_saved(head, maps, samples) -> int:
    """Bytes kept for backward."""
    kept = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        losses = head.loss(maps, samples, train_cfg={})
    assert losses
    return sum(kept.values())


@pytest.mark.parametrize("name", ["UPerHead", "FCNHead"])
def test_logits_of_all_pixels_are_not_kept(name):
    maps, samples = data()
    large = 2 * NUM_CLASSES * SIZE[0] * SIZE[1] * 4  # bytes in float32
    ours, theirs = (count_saved(head, maps, samples) for head in build_pair(name))
    # mmseg keeps the logarithms of probabilities; both keep labels (8 bytes), we the small logits.
    assert theirs - ours > large * 0.9


@pytest.mark.parametrize("name", ["UPerHead", "FCNHead"])
def test_maps_stay_in_channels_last_memory(name):
    head, _ = build_pair(name)
    formats = []
    for module in head.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(
                lambda _, inputs, out: formats.append(
                    inputs[0].is_contiguous(memory_format=torch.channels_last)
                    and out.is_contiguous(memory_format=torch.channels_last)
                )
            )
    head.eval()(data()[0])
    assert all(formats) and len(formats) > 1


def test_no_number_goes_to_the_host():
    maps, samples = data()
    arguments = dict(loss_decode=CROSS_ENTROPY | dict(avg_non_ignore=True))
    ours, theirs = build_pair("FCNHead", **arguments)
    reads = []
    for head in (ours, theirs):
        with HostReads() as counter:
            head.loss(maps, samples, train_cfg={})
        reads.append(counter.count)
    assert reads[0] == 0 < reads[1]


def test_reason_is_logged(caplog):
    head, _ = build_pair("FCNHead", **LEFT_TO_MMSEG["sampler"])
    logger = MMLogger.get_current_instance()
    logger.setLevel(logging.DEBUG)
    logger.addHandler(caplog.handler)
    head.loss(*data(), train_cfg={})
    logger.removeHandler(caplog.handler)
    assert "loss of FCNHead by mmseg: it samples pixels" in caplog.text


@pytest.mark.parametrize("name", ["UPerHead", "FCNHead"])
def test_predictions_are_those_of_mmseg(name):
    ours, theirs = build_pair(name)
    maps, _ = data()
    metas = [dict(img_shape=SIZE)] * 2
    found = ours.eval().predict(copy.copy(maps), metas, {})
    torch.testing.assert_close(found, theirs.eval().predict(maps, metas, {}), rtol=1e-4, atol=1e-5)
