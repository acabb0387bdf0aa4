"""`swin-mm benchmark`: options, errors, and one run from beginning to end."""

import json

import pytest
import torch

from swin_mm.benchmark import peers
from swin_mm.benchmark.step import Candidate
from swin_mm.cli import benchmark
from swin_mm.cli.main import run_command
from swin_mm.configs import ConfigError


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """A tiny architecture, and an own folder."""
    from swin_mm.models.backbones.arguments import Arch

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(benchmark.ARCHS, "tiny", Arch(8, (1, 1, 1, 1), (1, 1, 2, 2)))
    return tmp_path


def plan(*argv):
    args = benchmark.parse_args(argv)
    benchmark.check_args(args)
    return [work for _, work in benchmark.plan_workloads(args)]


def test_from_command_to_files(quick, capsys, monkeypatch):
    monkeypatch.setattr(
        "swin_mm.benchmark.step.find_spec", lambda name: None if name == "timm" else object()
    )
    argv = ["--size", "32x48", "--peers", "torchvision", "timm", "--rounds", "2", "--out", "found"]
    assert run_command("benchmark", [*argv, "--device", "cpu"]) == 0
    text = capsys.readouterr().out
    assert "timm eager: not installed\n" in text
    assert "written: found/result.json and result.png\n" in text
    content = json.loads((quick / "found/result.json").read_text())
    assert content["command"] == f"swin-mm benchmark {' '.join(argv)} --device cpu"
    assert content["versions"]["torch"] == torch.__version__.partition("+")[0]
    ours, peer, missing = content["cases"][0]["rows"]
    assert len(ours["samples_ms"]) == 2
    assert ours["times_ours"] == 1.0
    assert peer["median_ms"] > 0
    assert missing["error"] == "not installed"
    assert (quick / "found/result.png").stat().st_size > 0


@pytest.mark.slow
def test_sweep_has_a_case_for_each_value(quick):
    argv = ["--sweep", "side", "--values", "64", "32", "--rounds", "1", "--out", "found"]
    assert benchmark.main([*argv, "--device", "cpu"]) == 0
    content = json.loads((quick / "found/result.json").read_text())
    assert content["sweep"] == "side"
    assert [case["value"] for case in content["cases"]] == [32, 64]


def test_failure_of_our_own_is_an_error_of_the_command(quick, capsys, monkeypatch):
    def fail(work):
        raise RuntimeError("it broke\nsomewhere")

    monkeypatch.setitem(peers.BACKBONES, "swin_mm", fail)
    argv = ["--size", "32x32", "--rounds", "1", "--device", "cpu"]
    assert benchmark.main(argv) == 1
    assert "swin_mm eager: RuntimeError: it broke\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--config", "x", "--part", "neck"], "--config not with --part neck"),
        (["--config", "x", "--arch", "base"], "--arch not with --config: the config defines"),
        (["--config", "x", "--attn-backend", "triton"], "cfg-options model.backbone.KEY"),
        (["--config", "x", "--sweep", "depth"], "--config not with --sweep depth"),
        (["--config", "no_such_config"], "no config 'no_such_config'"),
        (["--part", "neck", "--attn-backend", "triton"], "a neck has no attention"),
        (["--sweep", "depth", "--part", "neck"], "does not change a neck"),
        (["--cfg-options", "a=1"], "need --config"),
        (["--values", "3"], "needs --sweep"),
        (["--sweep", "side", "--size", "32x32"], "--size not with --sweep side: give --values"),
        (["--sweep", "batch", "--batch", "2"], "--batch not with --sweep batch"),
        (["--sweep", "window", "--window", "7"], "--window not with --sweep window"),
        (["--sweep", "batch", "--size", "32x32", "64x64"], "take one --size"),
        (["--profile"], "need --config"),
        (["--profile", "--config", "a", "--mode", "inference"], "random images: give --size"),
        (["--profile", "--config", "a", "--peers", "mmdet"], "random images: give --size"),
        (["--profile", "--config", "a", "--run", "compile"], "--run not with --profile"),
        (["--objects", "3"], "inference of a detector: give --config"),
        (["--objects", "3", "--config", "a", "--mode", "train"], "no --mode train"),
        (["--profile", "--config", "a", "--batch", "2"], "give --size too"),
        (["--threads", "100000"], "cores"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_contradict(argv, message):
    with pytest.raises(ConfigError, match=message):
        plan(*argv)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--size", "800"], "must be HEIGHTxWIDTH in pixels, got '800'"),
        (["--size", "0x32"], "must be HEIGHTxWIDTH"),
        (["--batch", "0"], "must be a whole number above 0, got '0'"),
        (["--dtype", "fp8"], "invalid choice: 'fp8'"),
        (["--sweep", "colour"], "invalid choice: 'colour'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_cannot_be_read(argv, message, capsys):
    with pytest.raises(SystemExit):
        benchmark.parse_args(argv)
    assert message in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_missing_gpu_is_told():
    with pytest.raises(ConfigError, match="PyTorch finds no CUDA device"):
        plan("--device", "cuda")


def candidates(*argv):
    args = benchmark.parse_args(argv)
    return benchmark.plan_candidates(args, benchmark.plan_workloads(args)[0][1])


def test_candidates_are_those_asked_for():
    assert candidates() == [Candidate("swin_mm", "eager")]
    assert candidates("--peers", "none", "--run", "eager", "compile") == [
        Candidate("swin_mm", "eager"),
        Candidate("swin_mm", "compile"),
    ]
    names = [c.library for c in candidates("--peers", "all")]
    assert names == ["swin_mm", "mmdet", "timm", "torchvision", "transformers"]
    names = [c.library for c in candidates("--peers", "all", "--config", "upernet_swin_t")]
    assert names == ["swin_mm", "mmseg"]
    with pytest.raises(ConfigError, match="got keras"):
        candidates("--peers", "keras")


def test_workloads_are_those_asked_for():
    (work,) = plan("--arch", "base", "--version", "2", "--dtype", "bf16", "--batch", "3")
    assert (work.arch.embed_dims, work.window, work.batch, work.sizes) == (
        128,
        8,
        3,
        ((800, 1344),),
    )
    assert [w.sizes for w in plan("--size", "32x64", "64x64")] == [((32, 64),), ((64, 64),)]
    assert [w.batch for w in plan("--sweep", "batch", "--values", "4", "1", "4")] == [1, 4]
