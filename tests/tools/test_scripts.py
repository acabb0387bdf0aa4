"""The scripts in tools/: in a process of their own, in several, and under other tools."""

import os
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import mmdet
import pytest
import torch
from tiny_recipe import write_tiny_recipe
from toy_task import write_toy_config

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / "tools"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a script of tools/ in an empty folder; returns the finished process."""
    monkeypatch.chdir(tmp_path)
    # Scripts call `python`: that of the tests.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name in ("RANK", "LOCAL_RANK", "SWIN_MM_DEBUG", "NNODES", "NODE_RANK", "PORT"):
        monkeypatch.delenv(name, raising=False)

    def run_script(name, *arguments):
        interpreter = "bash" if name.endswith(".sh") else sys.executable
        command = [interpreter, str(TOOLS / name), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True)

    return run_script


@pytest.mark.parametrize(
    "name",
    [
        "train.py",
        "test.py",
        "predict.py",
        "print_config.py",
        "init_config.py",
        "convert_checkpoint.py",
        "inspect_checkpoint.py",
    ],
)
def test_help_names_the_script(monkeypatch, capsys, name):
    monkeypatch.setattr(sys, "argv", [str(TOOLS / name), "--help"])
    with pytest.raises(SystemExit) as exit:
        runpy.run_path(str(TOOLS / name), run_name="__main__")
    assert exit.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: {name} ")


def test_error_is_one_line_and_exit_status_one(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(TOOLS / "train.py"), "no_such_config"])
    with pytest.raises(SystemExit) as exit:
        runpy.run_path(str(TOOLS / "train.py"), run_name="__main__")
    assert exit.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("swin-mm: error: no config 'no_such_config'")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("dist_train.sh", ["a.py"]),
        ("dist_train.sh", ["a.py", "many"]),
        ("dist_test.sh", ["a.py", "b.pth"]),
        ("slurm_train.sh", ["partition", "job"]),
        ("slurm_test.sh", ["partition", "job", "a.py"]),
    ],
)
def test_shell_scripts_say_how_to_call_them(run, name, arguments):
    result = run(name, *arguments)
    assert result.returncode == 2
    assert name in result.stderr or "must be positive, got 'many'" in result.stderr


@pytest.mark.slow
def test_two_processes_train_and_validate(run, tmp_path):
    config = write_toy_config(tmp_path)
    result = run("dist_train.sh", config, 2, "--cfg-options", "train_cfg.max_epochs=2")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("│ batch ") == 1  # one process speaks
    assert "│ 8 = 4 images x 2 processes" in result.stdout
    checkpoint = tmp_path / "work_dirs" / "toy" / "epoch_2.pth"
    # Sixteen samples, eight in a step.
    assert torch.load(checkpoint, weights_only=False)["meta"]["iter"] == 4
    assert "Epoch(val) [2][2/2]    toy/error: " in result.stdout


@pytest.mark.parametrize(
    ("name", "arguments", "environment", "expected"),
    [
        (
            "slurm_train.sh",
            ["gpu", "job", "a.py", "--amp"],
            {"GPUS": "16"},
            "--partition=gpu --job-name=job --gres=gpu:8 --ntasks=16 --ntasks-per-node=8 "
            "--cpus-per-task=5 --kill-on-bad-exit=1 "
            f"python -u {TOOLS}/train.py a.py --amp --launcher slurm",
        ),
        (
            "slurm_train.sh",
            ["gpu", "job", "a.py", "out dir", "--amp"],
            {"GPUS": "2", "CPUS_PER_TASK": "3", "SRUN_ARGS": "--quiet --time=1"},
            "--partition=gpu --job-name=job --gres=gpu:2 --ntasks=2 --ntasks-per-node=2 "
            "--cpus-per-task=3 --kill-on-bad-exit=1 --quiet --time=1 "
            f"python -u {TOOLS}/train.py a.py --work-dir out dir --amp --launcher slurm",
        ),
        (
            "slurm_test.sh",
            ["gpu", "job", "a.py", "b.pth", "--tta"],
            {"GPUS_PER_NODE": "4"},
            "--partition=gpu --job-name=job --gres=gpu:4 --ntasks=8 --ntasks-per-node=4 "
            "--cpus-per-task=5 --kill-on-bad-exit=1 "
            f"python -u {TOOLS}/test.py a.py b.pth --tta --launcher slurm",
        ),
    ],
    ids=["train", "train into a folder", "test"],
)
def test_what_is_asked_of_slurm(run, fake, monkeypatch, name, arguments, environment, expected):
    fake("srun", 'echo "$@"')
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    result = run(name, *arguments)
    assert result.stdout.strip() == expected, result.stderr


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Puts a program of a few lines before those of the system."""
    folder = tmp_path / "fake"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def write(name, lines):
        (folder / name).write_text(f"#!/bin/bash\n{lines}\n")
        (folder / name).chmod(0o755)

    return write


RUN = "-m torch.distributed.run"
HERE = "--nproc-per-node=2 --max-restarts={restarts} {more}{tools}/{script} --launcher pytorch"


@pytest.mark.parametrize(
    ("environment", "rendezvous", "restarts", "more"),
    [
        ({}, "--standalone", 0, ""),
        ({"PORT": "29501", "MAX_RESTARTS": "2"}, "--standalone", 2, ""),
        (
            {"NNODES": "2", "NODE_RANK": "0", "MASTER_ADDR": "10.0.0.1"},
            "--nnodes=2 --rdzv-backend=c10d --rdzv-endpoint=10.0.0.1:29500 "
            "--rdzv-conf=is_host=1 --local-addr=10.0.0.1",
            0,
            "",
        ),
        (
            {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "10.0.0.1", "PORT": "29501"},
            "--nnodes=2 --rdzv-backend=c10d --rdzv-endpoint=10.0.0.1:29501 --rdzv-conf=is_host=0",
            0,
            "",
        ),
        (
            {"NNODES": "1:4", "MASTER_ADDR": "a", "TORCHRUN_ARGS": "--rdzv-id=7 --local-addr=b"},
            "--nnodes=1:4 --rdzv-backend=c10d --rdzv-endpoint=a:29500",
            0,
            "--rdzv-id=7 --local-addr=b ",
        ),
    ],
    ids=["one machine", "restarts", "first of two", "second of two", "a range"],
)
def test_what_is_asked_of_torchrun(run, fake, monkeypatch, environment, rendezvous, restarts, more):
    fake("python", 'echo "$@"')
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    result = run("dist_train.sh", "a.py", 2, "--resume", "b.pth")
    script = "train.py a.py --resume b.pth"
    wanted = HERE.format(restarts=restarts, more=more, tools=TOOLS, script=script)
    assert result.stdout.strip() == f"{RUN} {rendezvous} {wanted}", result.stderr
    result = run("dist_test.sh", "a.py", "b.pth", 2, "--tta")
    script = "test.py a.py b.pth --tta"
    wanted = HERE.format(restarts=restarts, more=more, tools=TOOLS, script=script)
    assert result.stdout.strip() == f"{RUN} {rendezvous} {wanted}", result.stderr


@pytest.mark.parametrize(
    ("name", "arguments", "environment", "message"),
    [
        ("dist_train.sh", ["a.py", "2"], {"MAX_RESTARTS": "1"}, "give --resume"),
        ("dist_train.sh", ["a.py", "2"], {"NNODES": "1:2", "MASTER_ADDR": "a"}, "give --resume"),
        ("dist_train.sh", ["a.py", "2"], {"NNODES": "2"}, "MASTER_ADDR: must be the address"),
        ("slurm_train.sh", ["gpu", "job", "a.py"], {"REQUEUE": "1"}, "give --resume"),
    ],
)
def test_what_scripts_need(run, fake, monkeypatch, name, arguments, environment, message):
    for program in ("python", "sbatch"):
        fake(program, "echo started")
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    result = run(name, *arguments)
    assert result.returncode != 0 and message in result.stderr and not result.stdout


# In the place of Slurm's: the first runs a job at once, the second a step of it.
SBATCH = """
while [[ $1 == --* ]]; do echo "$1" >> asked; shift; done
SLURM_JOB_ID=123457 exec bash "$@"
"""
SRUN = """
echo "port $MASTER_PORT, $*" >> asked
[[ "{act}" == kill* ]] || exec bash -c "{act}"
sleep 60 & trap 'kill $!; echo saved >> asked; exit {status}' USR1
{act}
wait
"""


@pytest.mark.parametrize(
    ("act", "status", "end", "requeued"),
    [
        ("kill -USR1 $PPID", 138, 0, True),
        ("kill -USR1 $PPID", 0, 0, False),
        ("exit 1", 0, 1, False),
        ("exit 143", 0, 143, False),
        ("exit 0", 0, 0, False),
    ],
    ids=["time is over", "done at the last moment", "error", "preempted or cancelled", "done"],
)
def test_a_job_is_queued_again_when_its_time_is_over(
    run, fake, tmp_path, monkeypatch, act, status, end, requeued
):
    fake("sbatch", SBATCH)
    fake("srun", SRUN.format(act=act, status=status))
    fake("scontrol", 'echo "scontrol $*" >> asked')
    monkeypatch.setenv("REQUEUE", "1")
    monkeypatch.setenv("SRUN_ARGS", "--time=1")
    result = run("slurm_train.sh", "gpu", "job", "a.py", "--resume")
    assert result.returncode == end, result.stderr
    asked = (tmp_path / "asked").read_text().splitlines()
    step = f"python -u {TOOLS}/train.py a.py --resume --launcher slurm"
    assert asked[:7] == [
        *("--partition=gpu", "--job-name=job", "--gres=gpu:8", "--ntasks=8"),
        *("--ntasks-per-node=8", "--cpus-per-task=5", "--time=1"),
    ]
    assert asked[7] == f"port 23457, --kill-on-bad-exit=1 --cpus-per-task=5 {step}"
    assert asked[8:] == ["saved"] * act.startswith("kill") + ["scontrol requeue 123457"] * requeued
    lines = [
        line for line in (TOOLS / "slurm_job.sh").read_text().splitlines() if "#SBATCH" in line
    ]
    assert {"#SBATCH --requeue", "#SBATCH --signal=B:USR1@120"} < set(lines)


# Trains what is asked for: killed the first time, with the status of such a training.
TRAIN_OR_DIE = """#!/usr/bin/env bash
case "$1 $2" in "tools/train.py mask_rcnn"*) ;; *) exit ;; esac
echo "$@" >> trainings
[ "$(wc -l < trainings)" -gt 1 ] || exit 143
mkdir -p "$4" && echo "$4/epoch_4.pth" > "$4/last_checkpoint"
"""


def test_the_quick_start_marks_no_killed_training_as_done(run, tmp_path):
    """What a killed training leaves, and its status, are tested in `fuzz/test_kills`."""
    (tmp_path / "tools").mkdir()
    script = shutil.copy(TOOLS / "quickstart.sh", tmp_path / "tools")
    (tmp_path / "tools" / "make_env.sh").touch()
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "activate").write_text(f"PATH={programs}:$PATH")
    (programs / "swin-mm").write_text("#!/bin/sh\n")
    (programs / "python").write_text(TRAIN_OR_DIE)
    for program in ("swin-mm", "python"):
        (programs / program).chmod(0o755)
    folder = tmp_path / "work_dirs" / "quickstart" / "mask_rcnn_swin_mini_shapes"
    folder.mkdir(parents=True)
    mark = folder / "trained"

    killed = run(os.path.relpath(script, TOOLS))
    assert killed.returncode == 128 + signal.SIGTERM and not mark.exists()
    run(os.path.relpath(script, TOOLS))
    assert mark.exists()
    trainings = (tmp_path / "trainings").read_text().splitlines()
    assert len(trainings) == 2 and all(line.endswith("--resume") for line in trainings)


@pytest.mark.slow
def test_mmdet_own_tool_trains_our_config(run, tmp_path, tiny_shapes):
    """No word of swin_mm but in the config, and a base of mmdet within it."""
    config = tmp_path / "small.py"
    once = "train_cfg = dict(max_epochs=1)\noptim_wrapper = dict(type='swin_mm.AmpOptimWrapper')\n"
    write_tiny_recipe("mmdet", tiny_shapes, config, once)
    tool = Path(mmdet.__file__).parent / ".mim" / "tools" / "train.py"
    result = run(os.path.relpath(tool, TOOLS), config)
    assert result.returncode == 0, result.stderr
    assert "MaskRCNN on SwinTransformer" in result.stdout  # the start table
    assert "coco/segm_mAP_50: " in result.stdout
    work_dir = tmp_path / "work_dirs" / "small"
    assert {"epoch_1.pth", "last_checkpoint", "curves.png"} <= {p.name for p in work_dir.iterdir()}
