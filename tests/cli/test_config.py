"""Configs by path and by name, broken ones, and doubtful overrides."""

import argparse

import pytest
from mmengine.config import Config

from swin_mm.cli import print_config
from swin_mm.cli.config import add_config_options, load_config
from swin_mm.configs import ConfigError, find_config, packaged_configs


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
    ("override", "doubt"),
    [
        ("optim_wraper.optimizer.lr=2", "did you mean optim_wrapper.optimizer.lr?"),
        ("model.backbone.depth=[1]", "did you mean model.backbone.depths?"),
        ("model.heads.0.widht=1", "did you mean model.heads.0.width?"),
        ("colour=blue", "nothing may read it"),
    ],
)
def test_doubtful_override_is_taken_with_a_warning(write, capsys, override, doubt):
    cfg = load_config(write(CONFIG), parse(override))
    key = override.partition("=")[0]
    assert capsys.readouterr().err == f"warning: the config has no {key}: {doubt}\n"
    assert override.partition(".")[0].partition("=")[0] in cfg


def test_one_process_of_many_warns(write, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    load_config(write(CONFIG), parse("colour=blue"))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("override", ["model.heads.4.width=1", "model.type.a=1"])
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
