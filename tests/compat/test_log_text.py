"""Control characters in the log of mmengine."""

import io
import logging

import pytest
from mmengine.logging import MMLogger, print_log
from mmengine.logging.logger import MMFormatter

NAME = "a\x1b]0;title\x07b\x1b[2J\rc\x9bd"
SHOWN = r"a\x1b]0;title\x07b\x1b[2J\rc\x9bd"


@pytest.fixture
def logger(tmp_path):
    """A logger of mmengine, and what it has written to its file and to the terminal."""
    logger = MMLogger("escapes", log_file=str(tmp_path / "run.log"))
    terminal = logger.handlers[0].stream = io.StringIO()
    return logger, lambda: ((tmp_path / "run.log").read_text(), terminal.getvalue())


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING, logging.ERROR])
def test_names_are_escaped_and_tables_stay(logger, level):
    logger, written = logger
    logger.log(level, "found %s\n| x\t|", NAME)
    for text in written():
        assert text.endswith(f"found {SHOWN}\n| x\t|\n")
    assert "\x1b" not in written()[0]


def test_colours_of_the_level_stay():
    formatter = MMFormatter()
    formatter.info_format = "\x1b[37mINFO\x1b[0m - %(message)s"
    record = logging.makeLogRecord(dict(levelno=logging.INFO, msg=NAME))
    assert formatter.format(record) == f"\x1b[37mINFO\x1b[0m - {SHOWN}"
    assert record.msg == NAME  # for other handlers


def test_what_is_printed_without_a_logger_is_escaped(capsys):
    print_log(f"unexpected key: {NAME}\nand")
    assert capsys.readouterr().out == f"unexpected key: {SHOWN}\nand\n"


def test_mmengine_still_needs_it(logger, monkeypatch):
    """When this fails, the repair can go."""
    logger, written = logger
    monkeypatch.setattr(MMFormatter, "format", MMFormatter.format.__wrapped__)
    logger.info(NAME)
    assert NAME.replace("\r", "\n") in written()[0]
