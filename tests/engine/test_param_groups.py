"""Merged groups: every parameter is trained as with mmengine's one group for each."""

import copy
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn

from swin_mm import SwinTransformer
from swin_mm.engine import ResumedSchedulesHook, ResumeError

STOCK = dict(type="OptimWrapper", constructor="DefaultOptimWrapperConstructor")
OURS = dict(type="swin_mm.OptimWrapper", constructor="swin_mm.MergedOptimWrapperConstructor")
PARAMWISE = dict(
    norm_decay_mult=0.0,
    bias_lr_mult=2.0,
    custom_keys={
        "relative_position_bias_table": dict(lr_mult=20.0, decay_mult=0.0),
        "absolute_pos_embed": dict(decay_mult=0.0),
        "query": dict(decay_mult=0.0),
        "patch_embed": dict(lr_mult=0.1),
    },
)
COSINE = dict(type="CosineAnnealingLR", T_max=3, end=3)
SCHEDULES = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=4),
    dict(type="CosineAnnealingLR", T_max=8, eta_min_ratio=0.05, by_epoch=False, begin=2, end=12),
]


class Model(nn.Module):
    """A backbone, and parameters outside of it; some frozen."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = SwinTransformer(
            embed_dims=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2), drop_path_rate=0.0
        )
        self.query = nn.Embedding(3, 64)
        self.head = nn.Linear(64, 2)
        self.backbone.layers[0].requires_grad_(False)

    def forward(self, image):
        pooled = self.backbone(image)[-1].mean((2, 3))
        return self.head(pooled + self.query.weight.mean(0))


def build(kind, model, paramwise=PARAMWISE, **optimizer):
    # `eps`: the bias of keys has no gradient but rounding errors, which Adam would make large.
    optimizer = {"type": "AdamW", "lr": 0.01, "weight_decay": 0.1, "eps": 1e-5, **optimizer}
    cfg = dict(kind, optimizer=optimizer, clip_grad=dict(max_norm=1.0), paramwise_cfg=paramwise)
    return build_optim_wrapper(model, copy.deepcopy(cfg))


def settings(wrapper, model, names=("lr", "weight_decay", "initial_lr")):
    """What each parameter is trained with, by its name."""
    by_id = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        by_id[id(parameter)]: tuple(group.get(name) for name in names)
        for group in wrapper.optimizer.param_groups
        for parameter in group["params"]
    }


class Training:
    """A model that is trained on the same images, whoever trains it."""

    def __init__(self, kind, **optimizer):
        self.model = Model()
        self.wrapper = build(kind, self.model, **optimizer)
        self.schedulers = [
            PARAM_SCHEDULERS.build(dict(schedule, optimizer=self.wrapper)) for schedule in SCHEDULES
        ]
        self.rates = []

    def run(self, steps):
        for step in steps:
            torch.manual_seed(step)
            images, target = torch.randn(2, 3, 32, 32), torch.randn(2, 2)
            self.wrapper.update_params((self.model(images) - target).square().mean())
            self.rates.append(settings(self.wrapper, self.model))
            for scheduler in self.schedulers:
                scheduler.step()
        return self

    def save(self):
        states = [scheduler.state_dict() for scheduler in self.schedulers]
        parts = (self.model.state_dict(), self.wrapper.state_dict(), states)
        return copy.deepcopy(parts)

    def resume(self, saved, with_hook=True):
        """As mmengine's runner does, and our hook after it."""
        weights, optimizer, states = copy.deepcopy(saved)
        self.model.load_state_dict(weights)
        self.wrapper.load_state_dict(optimizer)
        for scheduler, state in zip(self.schedulers, states, strict=True):
            scheduler.load_state_dict(state)

        class Runner:
            param_schedulers = self.schedulers

        if with_hook:
            ResumedSchedulesHook().before_train(Runner)
        return self


@pytest.fixture(scope="module")
def stock():
    """Ten steps as mmengine takes them, and what it saved after five."""
    training = Training(STOCK).run(range(5))
    saved = training.save()
    return training.run(range(5, 10)), saved


def assert_same(ours, stock):
    expected = stock.model.state_dict()
    for name, value in ours.model.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=2e-5, atol=2e-6, msg=name)
    assert ours.rates == stock.rates[-len(ours.rates) :]


@pytest.mark.parametrize("fused", [True, False, None], ids=["fused", "foreach no", "default"])
def test_ten_steps_end_with_mmengines_weights(stock, fused):
    ours = Training(OURS, fused=fused).run(range(10))
    assert len(ours.wrapper.optimizer.param_groups) < 10
    assert len(stock[0].wrapper.optimizer.param_groups) > 40
    assert ours.wrapper.optimizer.param_groups[0]["fused"] is fused
    assert_same(ours, stock[0])
    start = Model().state_dict()
    moved = {
        name for name, value in ours.model.state_dict().items() if (value != start[name]).any()
    }
    assert len(moved) > 40 and not any(name.startswith("backbone.layers.0.") for name in moved)


def test_first_group_has_the_rate_that_mmengine_logs():
    ours, stock = (Training(kind) for kind in (OURS, STOCK))
    for training in (ours, stock):
        training.run(range(3))
    assert ours.wrapper.get_lr()["lr"][0] == stock.wrapper.get_lr()["lr"][0]
    assert ours.wrapper.get_lr()["base_lr"] == stock.wrapper.get_lr()["base_lr"]


def test_groups_are_merged_where_all_settings_are_equal():
    # Of `e` no rule speaks, and that of `a` changes nothing.
    model = nn.ModuleDict({name: nn.Linear(1, 1, bias=False) for name in "abcde"})
    custom = {"a": dict(), "b": dict(lr_mult=2.0), "c": dict(lr_mult=2.0), "d": dict(betas=(0, 0))}
    groups = build(OURS, model, dict(custom_keys=custom)).optimizer.param_groups
    found = [[p is q for q in model.parameters()].index(True) for g in groups for p in g["params"]]
    assert [len(group["params"]) for group in groups] == [2, 2, 1] and found == [0, 4, 1, 2, 3]
    assert groups[2]["betas"] == (0, 0)


@pytest.mark.parametrize("paramwise", [None, {}], ids=str)
def test_without_options_there_is_one_group_as_ever(paramwise):
    model = Model()
    wrapper = build(OURS, model, paramwise, fused=True)
    assert [len(g["params"]) for g in wrapper.optimizer.param_groups] == [
        len(list(model.parameters()))
    ]
    saved = copy.deepcopy(build(STOCK, model, paramwise).state_dict())
    wrapper.load_state_dict(saved)
    assert wrapper.optimizer.param_groups[0]["fused"] is True


def test_resumes_what_mmengine_saved_with_a_group_for_each_parameter(stock):
    final, saved = stock
    ours = Training(OURS, fused=True).resume(saved)
    assert all(group["fused"] is True for group in ours.wrapper.optimizer.param_groups)
    assert_same(ours.run(range(5, 10)), final)


def test_resumes_what_it_saved_itself(stock):
    saved = Training(OURS, fused=True).run(range(5)).save()
    assert_same(Training(OURS, fused=True).resume(saved).run(range(5, 10)), stock[0])
    # Also on a machine, or after a change of mind, without the fused kernel.
    plain = Training(OURS, fused=False).resume(saved)
    assert all(group["fused"] is False for group in plain.wrapper.optimizer.param_groups)
    assert_same(plain.run(range(5, 10)), stock[0])


def test_hook_leaves_schedules_alone_that_have_none_or_fit():
    plateau = dict(type="ReduceOnPlateauLR", monitor="loss", optimizer=Training(OURS).wrapper)

    class Runner:
        param_schedulers = {"a": [PARAM_SCHEDULERS.build(plateau)], "b": Training(OURS).schedulers}

    before = [list(scheduler.base_values) for scheduler in Runner.param_schedulers["b"]]
    ResumedSchedulesHook().before_train(Runner)
    assert [scheduler.base_values for scheduler in Runner.param_schedulers["b"]] == before
    Runner.param_schedulers = None
    ResumedSchedulesHook().before_train(Runner)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ([COSINE], None),
        ([{**COSINE, "end": 6}], "CosineAnnealingLR has end=3 there and 6 in the config"),
        ([{**COSINE, "eta_min": 0.1}], "CosineAnnealingLR has eta_min=0.0 there and 0.1 in the "),
        ([COSINE, COSINE], "there are 1 there and 2 in the config"),
    ],
)
def test_schedules_that_are_not_the_configs_are_told(config, expected):
    def build(schedule):
        return PARAM_SCHEDULERS.build({**schedule, "optimizer": Training(OURS).wrapper})

    saved, warnings = build(COSINE), []
    saved.step()

    class Runner:
        _resume = True
        logger = SimpleNamespace(warning=warnings.append)
        param_schedulers = [build(schedule) for schedule in config]

    ResumedSchedulesHook().after_load_checkpoint(Runner, {"param_schedulers": [saved.state_dict()]})
    assert len(warnings) == (expected is not None)
    assert all(expected in line for line in warnings)


def test_settings_that_differ_within_a_group_are_refused():
    model = Model()
    other = copy.deepcopy(PARAMWISE)
    other["custom_keys"]["head"] = dict(lr_mult=0.5)
    saved = copy.deepcopy(build(STOCK, model, other).state_dict())
    with pytest.raises(
        ResumeError, match=r"saved with \w+=.* and .*, and the config gives .*paramwise_cfg it was"
    ):
        build(OURS, model).load_state_dict(saved)


def test_another_number_of_groups_is_refused():
    model = Model()
    saved = copy.deepcopy(build(OURS, model, dict(norm_decay_mult=0.0)).state_dict())
    wrapper = build(OURS, model)
    count = len(wrapper.optimizer.param_groups)
    with pytest.raises(
        ResumeError, match=rf"saved with 2 groups .* makes {count}, \d+ before .* resume with"
    ):
        wrapper.load_state_dict(saved)


def test_layer_decay_resumes_and_stays_fused():
    constructor = dict(OURS, constructor="swin_mm.LayerDecayOptimWrapperConstructor")
    paramwise = dict(layer_decay_rate=0.5)
    model = Model()
    wrapper = build(constructor, model, paramwise, fused=True)
    before = settings(wrapper, model, ("lr", "weight_decay"))
    assert before["head.weight"] == (0.01, 0.1) and before["head.bias"] == (0.01, 0.0)
    saved = copy.deepcopy(wrapper.state_dict())
    for group in saved["param_groups"]:
        group["fused"] = None
    wrapper.load_state_dict(saved)
    assert settings(wrapper, model, ("lr", "weight_decay")) == before
    assert all(group["fused"] for group in wrapper.optimizer.param_groups)
