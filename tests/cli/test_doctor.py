"""The doctor's findings in healthy and in broken environments."""

import subprocess
import sys
from collections import namedtuple
from importlib import metadata

import pytest
import torch

from swin_mm.cli import doctor, main
from swin_mm.compat import PATCHES


@pytest.fixture
def installed(monkeypatch):
    """Versions that `importlib.metadata` reports, to be changed by tests; `None` is absent."""
    real, versions = metadata.version, {}

    def version(name):
        if versions.get(name, "") is None:
            raise metadata.PackageNotFoundError(name)
        return versions.get(name) or real(name)

    monkeypatch.setattr(metadata, "version", version)
    return versions


def report(capsys):
    """Exit status and output of the doctor, with the spaces and frames of its tables removed."""
    status = doctor.main([])
    return status, " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_a_healthy_environment(capsys):
    status, text = report(capsys)
    assert status == 0 and "No fault found." in text
    for requirement in metadata.requires("swin-mm"):
        if "extra" not in requirement:
            name = requirement.partition(">")[0].partition("<")[0]
            needed = requirement.removeprefix(name) or "any"
            assert f"{name} {metadata.version(name)} {needed}" in text
    assert "mmcv._ext swin_mm's: " in text
    assert all(patch.name in text for patch in PATCHES)
    assert "attention, cpu inference sdpa" in text


def test_a_version_outside_the_range(installed, capsys):
    installed["mmdet"] = "3.2.0"
    status, text = report(capsys)
    assert status == 1 and "1 fault found:" in text
    assert "mmdet 3.2.0 is installed, <3.4,>=3.3 is needed" in text
    assert f"{sys.executable} -m pip install 'mmdet<3.4,>=3.3'" in text


def test_a_missing_package_and_all_that_need_it(installed, monkeypatch, capsys):
    installed["mmsegmentation"] = installed["regex"] = None
    monkeypatch.setitem(sys.modules, "mmseg", None)
    status, text = report(capsys)
    assert status == 1 and "2 faults found:" in text
    assert "mmsegmentation is not installed. Fix it with" in text
    assert "-m pip install 'mmsegmentation<1.3,>=1.2.2'" in text
    assert "-m pip install 'regex>=" in text


@pytest.mark.parametrize(
    ("version", "fault"),
    [("2.1.0", None), ("1.7.2", "mmcv-lite 1.7.2 (mmcv) is installed, <2.2,>=2.1 is needed")],
    ids=["fits", "too_old"],
)
def test_a_compiled_mmcv_serves_as_mmcv_lite(installed, capsys, version, fault):
    installed["mmcv-lite"], installed["mmcv"] = None, version
    status, text = report(capsys)
    assert f"mmcv-lite {version} (mmcv) <2.2,>=2.1" in text
    assert status == (0 if fault is None else 1)
    assert fault is None or fault in text


def test_two_mmcv_over_one_another(installed, capsys):
    installed["mmcv"] = "2.1.0"
    status, text = report(capsys)
    assert status == 1
    assert "mmcv-lite and mmcv are both installed" in text
    assert "pip uninstall -y mmcv-lite mmcv && " in text


def test_a_fork_counts_as_installed(installed, capsys):
    installed["mmdet"], installed["onedl-mmdetection"] = None, "3.4.5"
    status, text = report(capsys)
    assert status == 0
    assert "mmdet 3.4.5 (onedl-mmdetection)" in text


def test_a_fork_over_the_original(installed, capsys):
    installed["onedl-mmdetection"] = "3.5.1"
    status, text = report(capsys)
    assert status == 1 and "1 fault found:" in text
    assert "mmdet and their forks onedl-mmdetection are installed over one another's" in text
    assert "pip uninstall -y onedl-mmdetection && " in text
    assert "pip install --force-reinstall --no-deps mmdet" in text


def test_an_unsupported_python(monkeypatch, capsys):
    monkeypatch.setattr(doctor.platform, "python_version", lambda: "3.9.18")
    status, text = report(capsys)
    assert status == 1
    assert "Python 3.9.18 is not supported, >=3.10 is" in text


def test_swin_mm_itself_not_installed(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "DISTRIBUTION", "no-such-distribution")
    status, text = report(capsys)
    assert status == 1
    assert "swin-mm is not installed" in text and "pip install -e ." in text


def test_a_package_that_cannot_be_imported(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mmdet", None)
    status, text = report(capsys)
    assert status == 1 and "1 fault found:" in text
    assert "mmdet cannot be imported: ModuleNotFoundError" in text
    assert "--force-reinstall --no-deps 'mmdet<3.4,>=3.3'" in text


@pytest.mark.slow
def test_a_broken_compiled_mmcv(tmp_path):
    """Its symbols are those of another PyTorch; only a fresh process can import it anew."""
    code = (
        "import sys, types\n"
        "sys.modules['mmcv._ext'] = types.ModuleType('mmcv._ext')\n"
        "from swin_mm.cli import doctor\n"
        "sys.exit(doctor.main([]))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1, result.stderr
    assert "mmcv.ops cannot be imported: AssertionError" in result.stdout
    assert "pip uninstall -y mmcv && " in result.stdout
    assert "Machine" in result.stdout and "Implementations" in result.stdout


@pytest.mark.parametrize(
    ("cuda", "reason"),
    [(None, "is built without CUDA"), ("13.0", "needs a driver for CUDA 13.0")],
    ids=["cpu_build", "old_driver"],
)
def test_a_gpu_that_pytorch_cannot_use(monkeypatch, tmp_path, cuda, reason):
    (tmp_path / "version").touch()
    monkeypatch.setattr(doctor, "NVIDIA_DRIVER", str(tmp_path / "version"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    (fault,) = doctor.check_gpu()
    assert reason in fault.problem and "pip install" in fault.command


def test_a_gpu_in_use_is_described(monkeypatch):
    properties = namedtuple("properties", "name total_memory major minor")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda i: properties("NVIDIA X", 80 * 2**30, 9, 0)
    )
    assert ("GPU 0", "NVIDIA X, 80 GiB, compute capability 9.0") in doctor.describe_machine()


@pytest.mark.parametrize(("version", "status"), [("2.11.0", 0), ("2.10.0", 1)])
def test_the_command_ends_with_the_doctors_status(installed, version, status):
    installed["torch"] = version
    assert main.main(["doctor"]) == status


def test_arguments_are_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        doctor.main(["--fix"])
    assert stop.value.code == 2
