"""Errors of command lines: one line, and the flag that was meant."""

import argparse

import pytest

from swin_mm.cli.main import COMMANDS, import_command, main
from swin_mm.cli.parser import CommandParser, suggest


@pytest.mark.parametrize("name", COMMANDS)
def test_a_misspelt_flag_of_any_command_gets_the_nearest(name, capsys):
    with pytest.raises(SystemExit, match="2"):
        import_command(name).main(["a", "b", "--hlep"])
    error = capsys.readouterr().err.splitlines()
    assert "error: unrecognized arguments: --hlep; did you mean --help?" in error[-1]
    assert not any(line.startswith("usage:") for line in error)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["a", "--work-dri", "b"], "--work-dri; did you mean --work-dir?"),
        (["a", "--work_dir=b"], "--work_dir; did you mean --work-dir?"),
        (["--work-dri", "b"], "--work-dri; did you mean --work-dir?"),
        (["a", "-amp"], "-amp; did you mean --amp?"),
        (["a", "--am", "--xyzzy"], "--xyzzy ("),
        (["--AMP", "a", "--wrk-dir", "b"], "--AMP --wrk-dir; did you mean --amp --work-dir?"),
        (["a", "b"], "b ("),
    ],
    ids=" ".join,
)
def test_unknown_arguments(arguments, expected, capsys):
    parser = CommandParser(prog="tool")
    parser.add_argument("config")
    parser.add_argument("--work-dir")
    parser.add_argument("--amp", action="store_true")
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(arguments)
    assert f"tool: error: unrecognized arguments: {expected}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "is_refused"),
    [
        (["--several", "a", ""], True),
        (["--several", "a"], False),
        (["--several"], False),
        (["--suffix="], False),  # empty by default
        (["--suffix", "a"], False),
    ],
)
def test_arguments_that_are_empty(arguments, is_refused, capsys):
    parser = CommandParser(prog="tool")
    parser.add_argument("--several", nargs="*", default=[])
    parser.add_argument("--suffix", default="")
    if not is_refused:
        parser.parse_args(arguments)
        return
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(arguments)
    assert "error: --several is empty: is a variable of the" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "the following arguments are required: config"),
        (["a", "--rate", "b"], "argument --rate: invalid float value: 'b'"),
        (["a", "--rate", "-1", "b"], "unrecognized arguments: b"),
        (["a", "--name", ""], "--name is empty: is a variable of the shell not set?"),
        (["a", "--name="], "--name is empty: is a variable of the shell not set?"),
        ([""], "config is empty: is a variable of the shell not set?"),
    ],
    ids=" ".join,
)
def test_other_errors_are_argparse_s(arguments, expected, capsys):
    parser = CommandParser(prog="tool")
    parser.add_argument("config")
    parser.add_argument("--rate", type=float)
    parser.add_argument("--name")
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(arguments)
    assert capsys.readouterr().err == f"tool: error: {expected} (tool --help lists all)\n"


def test_what_is_far_from_all_gets_no_suggestion():
    assert suggest("--colour", ["--work-dir", "--amp"]) is None


def test_a_misspelt_flag_of_the_program(capsys):
    assert main(["--verison"]) == 2
    assert "did you mean '--version'?" in capsys.readouterr().err


def test_descriptions_fit_the_terminal_and_examples_stay_as_they_are(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    layout = argparse.RawDescriptionHelpFormatter
    example = "  " + "x" * 70
    parser = CommandParser(
        prog="tool", description="word " * 30, epilog=example, formatter_class=layout
    )
    lines = parser.format_help().splitlines()
    assert example in lines and max(len(line) for line in lines if line != example) <= 60
    assert sum(line.count("word") for line in lines) == 30
