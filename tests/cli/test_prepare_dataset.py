"""The command on a small data set of a local server."""

import zipfile

import pytest
from zoo_server import serve

from swin_mm.cli.main import main
from swin_mm.datasets.prepare import DATA_SETS, Archive, PublicData


@pytest.fixture
def url(tmp_path):
    """Address of `tmp_path`, as Python's own server gives it out: without ranges."""
    with serve(tmp_path) as address:
        yield address


def test_the_command_leaves_a_data_set(tmp_path, url, monkeypatch, capsys):
    with zipfile.ZipFile(tmp_path / "toy.zip", "w") as archive:
        archive.writestr("toy/1.jpg", "x")
    toy = PublicData(
        title="a toy",
        folder="data/toy",
        home="http://localhost",
        archives=(Archive("toy.zip", {"toy/*.jpg": 1}, url="http://127.0.0.1:1/toy.zip"),),
    )
    monkeypatch.setitem(DATA_SETS, "toy", toy)
    monkeypatch.chdir(tmp_path)
    assert main(["prepare-dataset", "toy", "--mirror", url, "--delete"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "a toy",
        "terms of use: http://localhost",
        f"toy.zip: fetching from {url}/toy.zip",
    ]
    assert lines[-1] == "toy is ready in data/toy"
    assert not list((tmp_path / "data" / "toy" / "downloads").iterdir())


def test_cityscapes_says_how_to_log_in(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["prepare-dataset", "cityscapes"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for words in (
        "gtFine_trainvaltest.zip and leftImg8bit_trainvaltest.zip cannot be fetched",
        "register at https://www.cityscapes-dataset.com/register/",
        "csDownload -d data/cityscapes/downloads gtFine_trainvaltest.zip",
        "run this again",
    ):
        assert words in error


def test_an_unknown_data_set_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["prepare-dataset", "coca"])
    assert stop.value.code == 2
    assert "invalid choice: 'coca'" in capsys.readouterr().err


def test_help_lists_the_data_sets(capsys):
    with pytest.raises(SystemExit):
        main(["prepare-dataset", "--help"])
    text = capsys.readouterr().out
    for name, recipe in DATA_SETS.items():
        assert f"  {name}" in text and recipe.folder in text
