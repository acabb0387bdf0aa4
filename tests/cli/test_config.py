"""Configs by path and by name, broken ones, and doubtful overrides."""

import argparse
from pathlib import Path

import mmdet
import mmseg
import pytest
from mmengine.config import Config
from torch.utils.data import DataLoader

from swin_mm.cli import print_config
from swin_mm.cli.config import add_config_options, load_config
from swin_mm.cli.overrides import check_top_keys
from swin_mm.configs import ConfigError, find_config, packaged_configs

DET, SEG = (Path(package.__file__).parent / ".mim" / "configs" for package in (mmdet, mmseg))
STOCK = sorted({*DET.glob("*/*swin*.py"), *SEG.glob("*/*swin*.py")})
WORKER_SETTINGS = ("num_workers", "persistent_workers", "prefetch_factor", "timeout")


@pytest.fixture
def write(tmp_path):
    def write_config(text, name="mine.py"):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write_config


def parse(*argv):
    parser = argparse.ArgumentParser()
    add_config_options(parser)
    return parser.parse_args(["--cfg-options", *argv]).cfg_options


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/my data/photos (1)/", "/my data/photos (1)/"),
        ("'my runs'", "my runs"),
        ("1 2", "1 2"),
        (" 1e-3 ", 0.001),
        ("/my data/a, /my  data/b (1)", ["/my data/a", "/my  data/b (1)"]),
        ("[a b, (c d, 1), [ 2, None ]]", ["a b", ("c d", 1), [2, None]]),
        ("(0.9, 0.999)", (0.9, 0.999)),
    ],
)
def test_blanks_in_a_value_stay(text, expected):
    assert parse(f"work_dir={text}") == {"work_dir": expected}


@pytest.mark.parametrize("name", ["mask_rcnn_swin_t", "mask_rcnn_swin_t.py"])
def test_finds_a_packaged_config_by_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config(name) == packaged_configs()["mask_rcnn_swin_t"]
    assert load_config(name).model.type == "MaskRCNN"


def test_file_goes_before_a_name(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("a = 1", "mask_rcnn_swin_t.py")
    assert load_config("mask_rcnn_swin_t.py").a == 1


def test_unknown_name_gives_the_nearest():
    with pytest.raises(ConfigError, match="no config 'mask_rcnn_swin': .*nearest: mask_rcnn_swin"):
        load_config("mask_rcnn_swin")
    with pytest.raises(ConfigError, match="no config 'zzz'.*print-config"):
        load_config("zzz")


@pytest.mark.parametrize("is_base", [False, True], ids=["itself", "base"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = 1\nb = dict(\n", "broken.py, line 2: '\\(' was never closed"),
        ("a = 1\n\nb = c\n", "broken.py, line 3: NameError: name 'c' is not defined"),
        ("_base_ = 'no.py'\n", "broken.py: one of its bases is missing: .*no.py"),
        ("_base_ = 'mmdet::no/no.py'\n", "broken.py: one of its bases is missing: .*no/no.py"),
        ("_base_ = 'nommdet::no/no.py'\n", "broken.py.*does not support to load nommdet"),
    ],
    ids=["syntax", "name", "base", "base of mmdet", "base of nobody"],
)
def test_broken_config_says_where(write, text, message, is_base):
    path = write(text, "broken.py")
    if is_base:
        path = write("_base_ = 'broken.py'\n")
    with pytest.raises(ConfigError, match=f"cannot read config .*{message}"):
        load_config(path)


def test_a_checkpoint_in_place_of_its_config_is_told(write):
    path = write("", "epoch_1.pth")
    with pytest.raises(ConfigError, match="epoch_1.pth is not a config, .* the config goes first"):
        load_config(path)


def test_contradicting_base_is_told(write):
    write("model = 3", "base.py")
    path = write("_base_ = 'base.py'\nmodel = dict(a=1)\n")
    with pytest.raises(ConfigError, match=r"mine.py.*TypeError: model=\{'a': 1\} in child config"):
        load_config(path)


CONFIG = """
model = dict(type='M', backbone=dict(type='B', depths=[2, 2]), heads=[dict(type='H', width=3)])
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
"""


def test_overrides_are_applied(write, capsys):
    overrides = parse(
        "model.backbone.depths=[1,2]",
        "model.heads.0.width=5",
        "optim_wrapper.optimizer.lr=1e-3",
        "model.backbone.with_cp=True",
        "randomness.seed=3",
    )
    cfg = load_config(write(CONFIG), overrides)
    assert cfg.model.backbone == dict(type="B", depths=[1, 2], with_cp=True)
    assert cfg.model.heads[0].width == 5
    assert cfg.optim_wrapper.optimizer.lr == 1e-3
    assert cfg.randomness.seed == 3
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("optim_wraper.optimizer.lr=2", "did you mean optim_wrapper.optimizer.lr?"),
        ("train_dataloader.batchsize=2", "did you mean train_dataloader.batch_size?"),
        ("auto_scale_lr.base_batch=2", "did you mean auto_scale_lr.base_batch_size?"),
        ("model.test_cfg.rcnn.score_th=1", "did you mean model.test_cfg.rcnn.score_thr?"),
        ("batch_size=8", "use train_dataloader.batch_size or val_dataloader.batch_size"),
        ("lr=0.1", "use optim_wrapper.optimizer.lr"),
        ("num_classes=3", "use model.roi_head.bbox_head.num_classes or model.roi_head.mask_h"),
        ("colour=blue", "nothing would read it"),
        ("model.neck={'type':'FPN'}", "model.neck.KEY=VALUE"),
    ],
)
def test_override_that_nothing_reads_is_refused(override, hint):
    with pytest.raises(ConfigError) as error:
        load_config("mask_rcnn_swin_t", parse(override))
    assert hint in str(error.value)
    assert override.partition(".")[0].partition("=")[0] in str(error.value)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("train_dataloder = dict(batch_size=4)", "train_dataloader"),
        ("optim_wraper = dict(type='X')", "optim_wrapper"),
        ("custom_hook = []", "custom_hooks"),
        ("defualt_hooks = dict()", "default_hooks"),
        ("load_form = 'a.pth'", "load_from"),
    ],
)
def test_misspelt_settings_name_the_nearest(write, text, meant):
    with pytest.raises(ConfigError, match=f"mine.py: no setting .*; did you mean {meant}\\?$"):
        load_config(write(f"{CONFIG}{text}\n"))


@pytest.mark.parametrize(
    "text",
    [
        "scales = 3\nmax_epochs = 4\ncrop_size = (3, 3)",
        "train_dataloders = dict(batch_size=4)\ntrain_dataloader = train_dataloders",
        "optimizer = dict(type='AdamW')",  # of earlier releases, read by nobody
    ],
    ids=["variables", "a variable that looks like a setting", "old"],
)
def test_variables_of_a_config_pass(write, text):
    load_config(write(f"{CONFIG}{text}\n"))


@pytest.mark.parametrize("name", ["mask_rcnn_swin_t", "upernet_swin_t"])
def test_configs_that_runs_write_pass(tmp_path, name):
    """They have the variables of the files beside settings that no longer use them."""
    cfg = load_config(name)
    cfg.dump(tmp_path / "written.py")
    assert load_config(str(tmp_path / "written.py")).to_dict() == cfg.to_dict()


@pytest.mark.slow
@pytest.mark.parametrize("path", STOCK, ids=lambda path: path.stem)
def test_settings_of_stock_configs_pass(path):
    check_top_keys(Config.fromfile(path))


@pytest.mark.parametrize(("rank", "lines"), [("0", 1), ("1", 0)])
def test_new_key_of_an_untyped_dict_is_warned_of_once(capsys, monkeypatch, rank, lines):
    monkeypatch.setenv("RANK", rank)
    load_config("mask_rcnn_swin_t", parse("model.test_cfg.rcnn.colour=blue"))
    assert capsys.readouterr().err.count("no model.test_cfg.rcnn.colour: nothing may") == lines


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "overrides", "expected"),
    [
        (
            "mask_rcnn_swin_mini_shapes",
            ["batch_size=8", "max_epochs=7"],
            {
                "train_dataloader.batch_size": 8,
                "auto_scale_lr.base_batch_size": 8,
                "train_cfg.max_epochs": 7,
                "param_scheduler.1.end": 7,
            },
        ),
        (
            "mask_rcnn_swin_t",  # the variable is one of a base
            ["max_epochs=24"],
            {"train_cfg.max_epochs": 24, "param_scheduler.1.milestones": [16, 22]},
        ),
        (
            "mask_rcnn_swin_t_3x",  # a base and the config on it both assign it
            ["max_epochs=12", "train_cfg.max_epochs=11"],  # what is named wholly wins
            {"train_cfg.max_epochs": 11, "param_scheduler.1.end": 12},
        ),
        (
            "mask_rcnn_swin_t_shapes",
            ["image_scale=(64,96)"],
            {
                "train_dataloader.dataset.pipeline.2.scale": (64, 96),
                "test_dataloader.dataset.pipeline.1.scale": (64, 96),
            },
        ),
        (
            "mask_rcnn_swin_t_shapes",  # a part of a variable
            ["train_pipeline.2.scale=(64,96)"],
            {
                "train_dataloader.dataset.pipeline.2.scale": (64, 96),
                "test_dataloader.dataset.pipeline.1.scale": (320, 320),
            },
        ),
        (
            "upernet_swin_mini_shapes",
            ["data_root=elsewhere/"],
            {
                "train_dataloader.dataset.data_root": "elsewhere/",
                "test_dataloader.dataset.data_root": "elsewhere/",
            },
        ),
    ],
)
def test_variables_are_changed_before_evaluation(name, overrides, expected):
    cfg = load_config(name, parse(*overrides))
    for key, value in expected.items():
        node = cfg
        for part in key.split("."):
            node = node[int(part) if part.isdigit() else part]
        assert node == value, key


VARIABLES = """
epochs, rate = 12, 0.1
steps: int = epochs * 100
if steps:
    steps += 1
unused = 3


def half(epochs):
    epochs = epochs // 2
    return epochs


train_cfg = dict(by_epoch=True, max_epochs=epochs, val_interval=half(epochs))
param_scheduler = [dict(type="LinearLR", end=steps)]
"""


@pytest.mark.parametrize(
    ("option", "epochs", "interval", "end"),
    [("epochs=4", 4, 2, 401), ("steps=7", 12, 6, 7)],
)
@pytest.mark.parametrize(
    "child",
    [
        "_base_ = 'base.py'\n",
        "from mmengine.config import read_base\nwith read_base():\n    from .base import *\n",
        "_base_ = 'base.py'\ntrain_cfg = dict(max_epochs={{_base_.epochs}})\n",
    ],
    ids=["base", "read_base", "template"],
)
def test_variables_however_they_are_assigned(write, child, option, epochs, interval, end):
    write(VARIABLES, "base.py")
    cfg = load_config(write(child), parse(option))
    assert (cfg.train_cfg.max_epochs, cfg.train_cfg.val_interval) == (epochs, interval)
    assert cfg.param_scheduler[0].end == end


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("unused=4", "nothing but the variable unused of the config; no setting"),
        ("max_epochs=4", "no max_epochs; did you mean epochs?"),
        ("val_interval=4", "nothing but the variable val_interval .*use train_cfg.val_interval"),
        ("epochs=many", "with --cfg-options epochs='many': .*base.py, line 6: TypeError"),
    ],
)
def test_variables_without_effect_are_refused(write, option, message):
    with pytest.raises(ConfigError, match=message):
        load_config(write(f"val_interval = 1\n{VARIABLES}", "base.py"), parse(option))


def test_deletion_entries_of_tuples_and_none():
    options = ["optim_wrapper.optimizer.betas.0=0.8", "model.data_preprocessor.std.-1=1.5"]
    options += ["model.neck.type=swin_mm.FPN", "model.neck._delete_=True", "val_cfg=None"]
    cfg = load_config("mask_rcnn_swin_t", parse(*options))
    assert cfg.optim_wrapper.optimizer.betas == (0.8, 0.999)
    assert cfg.model.data_preprocessor.std == [58.395, 57.12, 1.5]
    assert cfg.model.neck == dict(type="swin_mm.FPN")
    assert cfg.val_cfg is None


@pytest.mark.parametrize(
    "override", ["model.heads.4.width=1", "model.heads.x.width=1", "model.type.a=1"]
)
def test_impossible_override_is_refused(write, override):
    with pytest.raises(ConfigError, match="--cfg-options does not fit .*mine.py"):
        load_config(write(CONFIG), parse(override))


@pytest.mark.parametrize("argument", ["model", "=3", "model=[(1,2]"])
def test_override_that_is_not_one(argument, capsys):
    with pytest.raises(SystemExit):
        parse(argument)
    assert "error: --cfg-options" in capsys.readouterr().err


def test_print_config_lists_configs(capsys):
    print_config.main([])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(packaged_configs())
    assert "Mask R-CNN, Swin-T, COCO" in next(
        line for line in lines if line.startswith("mask_rcnn_swin_t ")
    )


@pytest.mark.parametrize("suffix", [".py", ".json", ".yml"])
def test_print_config_prints_and_saves(write, capsys, tmp_path, suffix):
    saved = tmp_path / "new" / f"saved{suffix}"
    options = ["--cfg-options", "optim_wrapper.optimizer.lr=0.5", "--save-path", str(saved)]
    print_config.main([write(CONFIG), *options])
    text = capsys.readouterr().out
    printed = Config.fromstring(text, ".py")
    assert printed.optim_wrapper.optimizer.lr == 0.5
    assert Config.fromfile(saved).to_dict() == printed.to_dict()


def test_print_config_refuses_other_files(write):
    with pytest.raises(ConfigError, match="--save-path must end in one of"):
        print_config.main([write(CONFIG), "--save-path", "x.txt"])


@pytest.mark.parametrize("name", ["train_dataloader", "val_dataloader", "test_dataloader"])
def test_loaders_without_workers(name):
    cfg = load_config(
        "mask_rcnn_swin_t",
        parse(
            f"{name}.num_workers=0",
            f"{name}.persistent_workers=True",
            f"{name}.prefetch_factor=4",
            f"{name}.timeout=9",
        ),
    )
    DataLoader([0], **{k: v for k, v in cfg[name].items() if k in WORKER_SETTINGS})
    others = {"train_dataloader", "val_dataloader", "test_dataloader"} - {name}
    assert all(cfg[other].persistent_workers for other in others)


@pytest.mark.parametrize(
    "value", ["dict(type='A', b=1)", "{'b': 1, 'c': 2}", "[dict(b=1, c=2)]", "1,{'b': 1}"]
)
def test_dicts_are_refused_and_the_way_is_told(value, capsys):
    with pytest.raises(SystemExit, match="2"):
        parse(f"model.x={value}")
    assert "takes no dict" in (said := capsys.readouterr().err) and "give model.x.NAME=" in said
