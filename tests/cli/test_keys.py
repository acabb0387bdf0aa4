"""Misspelt keys are refused with the nearest name, and nothing that works is."""

import subprocess
import sys
from pathlib import Path

import mmdet
import mmseg
import pytest
from mmengine.config import Config

from swin_mm.cli.keys import check_keys, takes
from swin_mm.configs import ConfigError, packaged_configs

DET, SEG = (Path(package.__file__).parent / ".mim" / "configs" for package in (mmdet, mmseg))
STOCK = [path for path in DET.glob("*/*.py") if "Swin" in path.read_text() or "swin" in path.name]
STOCK += [path for path in SEG.glob("*/*.py") if "swin" in path.name]
# mmdet 3.3.0 cannot build it: its FPN has no such argument.
BROKEN = {"fcos_swinb_fpn_8x4_sample1e-3_mstrain_v3det_2x": "model.neck.force_grad_on_level: FPN"}


@pytest.fixture
def write(tmp_path):
    def write_config(text: str, base: str = "mask_rcnn_swin_t") -> Config:
        path = tmp_path / "mine.py"
        path.write_text(f"_base_ = '{packaged_configs()[base]}'\n{text}\n")
        return Config.fromfile(path)

    return write_config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "model = dict(backbone=dict(drop_path_rat=0.2))",
            r"mine.py: model.backbone.drop_path_rat: SwinTransformer takes no 'drop_path_rat'; "
            r"did you mean drop_path_rate\?$",
        ),
        (
            "model = dict(roi_head=dict(bbox_head=dict(num_class=3)))",
            r"model.roi_head.bbox_head.num_class: \w+ takes no 'num_class'; did you mean num_class",
        ),
        (
            "optim_wrapper = dict(optimizer=dict(weight_decy=0.1))",
            r"optim_wrapper.optimizer.weight_decy: AdamW .*did you mean weight_decay",
        ),
        (
            "optim_wrapper = dict(clip_grads=dict(max_norm=1))",
            r"optim_wrapper.clip_grads: AmpOptimWrapper .*did you mean clip_grad\?",
        ),
        (
            "default_hooks = dict(logger=dict(intervall=2))",
            r"default_hooks.logger.intervall: LoggerHook .*did you mean interval\?",
        ),
        (
            "custom_hooks = [dict(type='EarlyStoppingHook', monitr='loss')]",
            r"custom_hooks.0.monitr: EarlyStoppingHook .*did you mean monitor\?",
        ),
        (
            "train_dataloader = dict(batchsize=4)",
            r"train_dataloader.batchsize: train_dataloader .*did you mean batch_size\?",
        ),
        (
            "train_dataloader = dict(dataset=dict(ann_fil='a.json'))",
            r"train_dataloader.dataset.ann_fil: CocoDataset .*did you mean ann_file\?",
        ),
        (
            "test_dataloader = dict(dataset=dict(pipeline=[dict(type='Resize', scal=(3, 3))]))",
            r"test_dataloader.dataset.pipeline.0.scal: Resize .*did you mean scale\?",
        ),
        (
            "param_scheduler = [dict(type='MultiStepLR', milestone=[8])]",
            r"param_scheduler.0.milestone: MultiStepLR .*did you mean milestones\?",
        ),
        ("train_cfg = dict(max_epoch=3)", r"train_cfg.max_epoch: .*did you mean max_epochs\?"),
        ("val_evaluator = dict(metrc='bbox')", r"val_evaluator.metrc: CocoMetric .*metric"),
        ("auto_scale_lr = dict(base_batch=8)", r"auto_scale_lr.base_batch: .*base_batch_size\?"),
        ("train_dataloder = dict(batch_size=4)", r"no setting train_dataloder; did you mean train"),
        ("optim_wraper = dict(type='X')", r"no setting optim_wraper; did you mean optim_wrapper\?"),
        ("custom_hook = []", r"no setting custom_hook; did you mean custom_hooks\?"),
        ("defualt_hooks = dict()", r"no setting defualt_hooks; did you mean default_hooks\?"),
        ("load_form = 'a.pth'", r"no setting load_form; did you mean load_from\?"),
    ],
    ids=lambda text: text if "=" in text else "",
)
def test_misspelt_keys_name_the_nearest(write, text, message):
    with pytest.raises(ConfigError, match=message) as error:
        check_keys(write(text))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("base", "key", "meant"),
    [
        ("mask_rcnn_swin_t", "pad_size_divisr", "pad_size_divisor"),
        ("upernet_swin_t", "seg_pad_value", "seg_pad_val"),
        ("upernet_swin_t", "size_divisr", "size_divisor"),
    ],
)
def test_misspelt_arguments_of_our_preprocessors(write, base, key, meant):
    with pytest.raises(ConfigError, match=f"data_preprocessor.{key}: .*did you mean {meant}"):
        check_keys(write(f"model = dict(data_preprocessor=dict({key}=3))", base))


def test_several_are_named_at_once(write):
    with pytest.raises(ConfigError, match="depth_s: .*; model.neck.out_channel: FPN"):
        check_keys(write("model = dict(backbone=dict(depth_s=1), neck=dict(out_channel=3))"))


def test_key_that_nothing_resembles_is_refused_with_what_there_is(write):
    with pytest.raises(ConfigError, match="takes no 'zzz'; it takes act_cfg, "):
        check_keys(write("model = dict(neck=dict(zzz=3))"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "scales = 3\nmax_epochs = 4\ncrop_size = (3, 3)\nmetainfo = dict(classes=('a',))",
        # A variable that looks like a setting, and is used.
        "train_dataloders = dict(batch_size=4)\ntrain_dataloader = train_dataloders",
        # Built by mmengine, or by the part's owner, with more than the class takes.
        "param_scheduler = [dict(type='CosineAnnealingLR', T_max=3, convert_to_iter_based=True)]",
        "custom_hooks = [dict(type='EMAHook', priority='LOW')]",
        "model = dict(neck=dict(norm_cfg=dict(type='BN', requires_grad=True)))",
        "model = dict(rpn_head=dict(init_cfg=dict(type='Normal', layer='Conv2d', std=0.01,"
        " override=dict(type='Normal', name='rpn_cls', std=0.1))))",
        # Of classes that take anything, or that nobody has registered.
        "train_pipeline = [dict(type='RandomChoiceResize', scales=[(3, 3)], keep_ratio=True)]",
        "model = dict(neck=dict(type='NoSuchNeck', anything=1))",
        "model = dict(test_cfg=dict(rcnn=dict(nms=dict(type='soft_nms', min_score=0.1))))",
        "optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mult=0), constructor='X')",
        "tta_model = dict(type='DetTTAModel', tta_cfg=dict(max_per_img=1))",
        # Of earlier releases, read by nobody.
        "optimizer = dict(type='AdamW', momentum=0.9)",
    ],
)
def test_what_is_right_passes(write, text):
    check_keys(write(text))


@pytest.mark.slow
@pytest.mark.parametrize("name", packaged_configs())
def test_our_configs_pass(name):
    check_keys(Config.fromfile(packaged_configs()[name]))


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(STOCK), ids=lambda path: path.stem)
def test_stock_configs_pass(path):
    cfg = Config.fromfile(path)
    if path.stem in BROKEN:
        with pytest.raises(ConfigError, match=BROKEN[path.stem]):
            check_keys(cfg)
    else:
        check_keys(cfg)


class Base:
    def __init__(self, a, *, b=1):
        pass


class PassesOn(Base):
    def __init__(self, c, **kwargs):
        super().__init__(**kwargs)


class Peeks(Base):
    def __init__(self, c, **kwargs):
        self.d = kwargs.pop("d", None)
        super().__init__(**kwargs)


class PassesOnTwice(PassesOn):
    def __init__(self, c=1, **kwargs):
        if c:
            Base.__init__(self, **kwargs)
        else:
            super().__init__(c, **kwargs)


class Keeps:
    def __init__(self, c, **kwargs):
        self.rest = kwargs


class Silent(PassesOn):
    pass


class Bare:
    pass


class New:
    def __new__(cls, anything):
        return object()


def function(e, f=2):
    pass


def open_function(e, **kwargs):
    pass


@pytest.mark.parametrize(
    ("maker", "names"),
    [
        (Base, {"self", "a", "b"}),
        (PassesOn, {"self", "a", "b", "c"}),
        (Silent, {"self", "a", "b", "c"}),
        (PassesOnTwice, {"self", "a", "b", "c"}),
        (Bare, set()),
        (New, None),
        (Peeks, None),
        (Keeps, None),
        (function, {"e", "f"}),
        (open_function, None),
        (dict, None),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_arguments_through_bases(maker, names):
    assert takes(maker) == names


@pytest.mark.slow
def test_in_a_process_that_has_imported_neither_framework():
    """Registries of mmdet and mmseg exist only once they are imported."""
    code = (
        "import sys; from mmengine.config import Config; from swin_mm.cli.keys import check_keys; "
        "cfg = Config.fromfile(sys.argv[1]); assert 'mmdet.registry' not in sys.modules; "
        "assert 'mmseg.registry' not in sys.modules; check_keys(cfg)"
    )
    command = [sys.executable, "-c", code, str(packaged_configs()["upernet_swin_mini_shapes"])]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
