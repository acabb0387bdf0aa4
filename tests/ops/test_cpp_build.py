"""Compilation of the C++ operators: kept, and given up with a reason."""

import logging
import os
import stat

import pytest

from swin_mm.ops import dispatch
from swin_mm.ops.cpp import build

NAME = "window_attention"


@pytest.fixture(autouse=True)
def afresh(monkeypatch, tmp_path):
    """A cache folder of the test's own, and nothing remembered before or after."""
    monkeypatch.setenv(build.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    for cached in (build.load_library, build.build_refusal):
        cached.cache_clear()
    yield
    for cached in (build.load_library, build.build_refusal):
        cached.cache_clear()


def write_compiler(folder, body):
    path = folder / "compiler"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_no_compiler(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(build.BuildError, match=r"no C\+\+ compiler .*CXX"):
        build.load_library(NAME)
    rows = {row[0]: row[1:] for row in dispatch.explain()}
    backend, reason = rows["window_attention, cpu inference"]
    assert backend == "sdpa" and "no C++ compiler" in reason


def test_a_failing_compiler_is_quoted(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", write_compiler(tmp_path, "echo no such flag >&2; exit 1"))
    with pytest.raises(build.BuildError, match="failed: no such flag"):
        build.load_library(NAME)
    assert not list((tmp_path / "cache").iterdir())  # nothing is left behind


def test_a_compiler_that_writes_rubbish(monkeypatch, tmp_path):
    rubbish = 'while [ "$1" != -o ]; do shift; done; echo rubbish > "$2"'
    monkeypatch.setenv("CXX", write_compiler(tmp_path, rubbish))
    with pytest.raises(build.BuildError, match="cannot be written or loaded"):
        build.load_library(NAME)


def test_a_folder_that_cannot_be_made(monkeypatch, tmp_path):
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("CXX", write_compiler(tmp_path, "exit 0"))
    with pytest.raises(build.BuildError, match="cannot be written or loaded"):
        build.load_library(NAME)


@pytest.mark.skipif(build.find_compiler() is None, reason="there is no C++ compiler")
def test_a_library_is_compiled_once(monkeypatch, caplog):
    monkeypatch.setattr(build.logger, "propagate", True)
    with caplog.at_level(logging.INFO, logger="swin_mm"):
        build.load_library(NAME)
    assert "Compiling window_attention.cpp" in caplog.text
    (path,) = build.cache_folder().iterdir()
    written = path.stat().st_mtime_ns
    build.load_library.cache_clear()
    build.load_library(NAME)
    assert path.stat().st_mtime_ns == written


def test_another_source_compiler_or_processor_is_another_library(monkeypatch, tmp_path):
    source = tmp_path / "some.cpp"
    source.write_text("int a;")
    compiler = write_compiler(tmp_path, "exit 0")
    prints = [build._fingerprint(source, compiler)]
    source.write_text("int b;")
    prints.append(build._fingerprint(source, compiler))
    os.utime(compiler, (1, 1))
    prints.append(build._fingerprint(source, compiler))
    monkeypatch.setattr(build, "_processor", lambda: "another")
    prints.append(build._fingerprint(source, compiler))
    monkeypatch.setattr(build, "FLAGS", "-O1")
    prints.append(build._fingerprint(source, compiler))
    monkeypatch.setattr(build, "SOURCES", tmp_path)
    (tmp_path / "some.h").write_text("int c;")
    prints.append(build._fingerprint(source, compiler))
    assert len(set(prints)) == 6


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv(build.CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert build.cache_folder() == tmp_path / "swin_mm"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert build.cache_folder() == tmp_path / "home" / ".cache" / "swin_mm"
