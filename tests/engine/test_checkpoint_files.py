"""Atomic writing, and the recognition of damaged and outdated checkpoint files."""

import os
import signal
import subprocess
import sys

import pytest
import torch

from swin_mm.engine import checkpoint_files
from swin_mm.engine.checkpoint_files import (
    AtomicLocalBackend,
    find_damage,
    newest_checkpoint,
    remove_partial_files,
    write_atomically,
)


def save(path, seconds=None):
    torch.save({"weight": torch.arange(1000.0)}, path)
    if seconds is not None:
        os.utime(path, (seconds, seconds))
    return path


def truncate(path, keep=0.5):
    os.truncate(path, int(path.stat().st_size * keep))


def test_write_replaces_the_content_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "file"
    write_atomically(path, b"old")
    AtomicLocalBackend().put(b"new", str(path))
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch, moment):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint_files.os, moment, fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_kill_during_a_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    child = os.fork()
    if child == 0:
        checkpoint_files.os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
        write_atomically(path, b"new")
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert path.read_bytes() == b"old"

    (left,) = remove_partial_files(tmp_path)
    assert left.name == f".file.{child}.partial"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("keep", [0.2, 0.7, 0.999], ids=lambda keep: f"{keep:.1%}")
def test_truncated_checkpoint_is_recognised(tmp_path, keep):
    path = save(tmp_path / "a.pth")
    assert find_damage(path) is None
    truncate(path, keep)
    assert "it is truncated at" in find_damage(path)


def test_flipped_byte_is_recognised(tmp_path):
    path = save(tmp_path / "a.pth")
    content = bytearray(path.read_bytes())
    content[content.index(torch.tensor([500.0]).numpy().tobytes())] ^= 1
    path.write_bytes(content)
    assert "damaged" in find_damage(path)


def test_missing_empty_and_legacy_files(tmp_path):
    path = tmp_path / "a.pth"
    assert find_damage(path) == "there is no such file"
    path.touch()
    assert find_damage(path) == "the file is empty"
    torch.save({}, path, _use_new_zipfile_serialization=False)
    assert find_damage(path) is None


def test_newest_is_chosen_by_time_not_by_number(tmp_path):
    # A run of twelve epochs, then another in the same folder that has reached its first.
    save(tmp_path / "epoch_12.pth", seconds=100)
    restarted = save(tmp_path / "epoch_1.pth", seconds=200)
    save(tmp_path / "best_epoch_3.pth", seconds=300)
    save(tmp_path / "iter_30.pth", seconds=300)
    assert newest_checkpoint(tmp_path, ["epoch_{}.pth"]) == restarted


def test_equal_times_are_ordered_by_number(tmp_path):
    save(tmp_path / "epoch_9.pth", seconds=100)
    tenth = save(tmp_path / "epoch_10.pth", seconds=100)
    assert newest_checkpoint(tmp_path, ["epoch_{}.pth"]) == tenth


def test_damaged_checkpoints_are_passed_over(tmp_path):
    whole = save(tmp_path / "epoch_1.pth", seconds=100)
    truncate(save(tmp_path / "epoch_2.pth"))
    (tmp_path / "epoch_3.pth").touch()
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "epoch_2.pth"))
    assert newest_checkpoint(tmp_path, ["epoch_{}.pth"], tmp_path / "last_checkpoint") == whole


def test_pointer_decides_where_times_mean_little(tmp_path):
    # Copying wrote `epoch_9` after `epoch_12`, and the pointer last.
    twelfth = save(tmp_path / "epoch_12.pth", seconds=100)
    save(tmp_path / "epoch_9.pth", seconds=200)
    pointer = tmp_path / "last_checkpoint"
    pointer.write_text("/where/it/was/before/epoch_12.pth\n")
    assert newest_checkpoint(tmp_path, ["epoch_{}.pth"], pointer) == twelfth


def test_stale_pointer_does_not_hide_a_newer_checkpoint(tmp_path):
    save(tmp_path / "epoch_1.pth", seconds=100)
    pointer = tmp_path / "last_checkpoint"
    pointer.write_text(str(tmp_path / "epoch_1.pth"))
    os.utime(pointer, (101, 101))
    second = save(tmp_path / "epoch_2.pth", seconds=200)
    assert newest_checkpoint(tmp_path, ["epoch_{}.pth"], pointer) == second


def test_a_folder_without_checkpoints_has_no_newest(tmp_path):
    assert newest_checkpoint(tmp_path, ["epoch_{}.pth"], tmp_path / "last_checkpoint") is None
    assert newest_checkpoint(tmp_path / "absent", ["epoch_{}.pth"]) is None


def test_a_file_whose_name_begins_alike_is_another(tmp_path):
    folder = tmp_path / ".epoch_1.pth.partial"  # being written, of a sharded checkpoint
    folder.mkdir()
    write_atomically(tmp_path / "epoch_1", b"ours")
    assert folder.exists()


def test_what_another_run_is_writing_stays(tmp_path):
    """A second run in the folder tidies it while the first writes."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as writer:
        partial = tmp_path / f".epoch_1.pth.{writer.pid}.partial"
        partial.touch()
        assert remove_partial_files(tmp_path) == []
        write_atomically(tmp_path / "epoch_1.pth", b"ours")
        assert partial.exists()
        writer.kill()
    assert remove_partial_files(tmp_path) == [partial]
