"""The command itself: help, unknown commands, and how errors come out."""

import subprocess
import sys
import warnings

import pytest
from mmengine.registry import MODELS

from swin_mm.cli import main as cli
from swin_mm.version import __version__


@pytest.fixture
def command(monkeypatch):
    """Makes `swin-mm train` call a function of the test's."""

    def replace(function):
        module = type(sys)("swin_mm.cli.train")
        module.main = function
        monkeypatch.setattr(cli, "import_module", lambda name: module)

    monkeypatch.setattr(sys, "argv", ["swin-mm"])
    return replace


def fail(error):
    def run(argv):
        raise error

    return run


@pytest.mark.parametrize("argv", [["--help"], ["-h"], []], ids=str)
def test_help_names_every_command(capsys, argv):
    assert cli.main(argv) == (0 if argv else 2)
    text = capsys.readouterr().out
    for name in cli.COMMANDS:
        assert f"\n  {name} " in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_version_is_printed(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"swin-mm {__version__}\n"


@pytest.mark.parametrize(
    ("typed", "hint"),
    [("trian", "did you mean 'train'?"), ("xyz", "there are train, test, predict,")],
)
def test_an_unknown_command_gets_a_hint(capsys, typed, hint):
    assert cli.main([typed]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"swin-mm: error: no command {typed!r}: {hint}")
    assert error.count("\n") == 1


def test_escape_sequences_in_warnings_are_shown_not_acted_on(command):
    seen = []
    command(lambda argv: seen.append(warnings.formatwarning("a\x1b[2Jb\n", UserWarning, "f", 1)))
    before = warnings.formatwarning
    assert cli.run_command("train", []) == 0
    assert "UserWarning: a\\x1b[2Jb\n" in seen[0] and warnings.formatwarning is before


def test_help_is_instant():
    """Nothing heavy may be imported for it."""
    code = """if True:
        import sys
        from swin_mm.cli.main import main
        main(["--help"])
        assert not {"torch", "mmengine", "mmcv"} & set(sys.modules), "imported"
    """
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_every_command_can_be_imported():
    for name in cli.COMMANDS:
        assert callable(cli.import_command(name).main)


def test_arguments_and_exit_status_pass_through(command):
    seen = []
    command(lambda argv: seen.append(argv) or 3)
    assert cli.main(["train", "a", "--amp"]) == 3
    assert seen == [["a", "--amp"]]
    assert sys.argv[0] == "swin-mm train"
    command(lambda argv: None)
    assert cli.main(["train"]) == 0


def test_error_is_one_line(command, capsys, monkeypatch):
    monkeypatch.delenv("SWIN_MM_DEBUG", raising=False)
    command(fail(FileNotFoundError(2, "No such file or directory", "data/x.json")))
    assert cli.main(["train"]) == 1
    expected = "swin-mm: error: [Errno 2] No such file or directory: 'data/x.json'\n"
    assert capsys.readouterr().err == expected


def test_error_is_raised_for_debugging(command, monkeypatch):
    monkeypatch.setenv("SWIN_MM_DEBUG", "1")
    command(fail(FileNotFoundError("x")))
    with pytest.raises(FileNotFoundError):
        cli.main(["train"])


def test_fault_of_the_program_keeps_its_traceback(command):
    command(fail(ZeroDivisionError("division by zero")))
    with pytest.raises(ZeroDivisionError):
        cli.main(["train"])


def test_misspelt_type_in_a_config_is_an_error_of_the_user(command, capsys):
    command(lambda argv: MODELS.build(dict(type="swin_mm.SwinTransfomer")))
    assert cli.main(["train"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(
        "swin-mm: error: the config does not fit: swin_mm.SwinTransfomer is not"
    )
    assert error.count("\n") == 1


def test_interrupt_says_how_to_continue(command, capsys):
    command(fail(KeyboardInterrupt()))
    assert cli.main(["train"]) == 130
    assert "--resume continues" in capsys.readouterr().err
