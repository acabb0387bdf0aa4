"""Reading files: what mm checkpoints need, and that nothing else ever runs."""

import argparse
import datetime
import io
import json
import os
import pathlib
import pickle
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.optim import OneCycleLR
from safetensors.torch import save_file
from torch_archives import Call, read_records, write_records

from swin_mm.checkpoint import CheckpointError, load_checkpoint_file
from swin_mm.checkpoint.load import origin_of


def save(content, tmp_path, **options):
    path = tmp_path / "weights.pth"
    torch.save(content, path, **options)
    return path


def rewrite_pickle(path, old, new):
    """Replaces bytes in the pickle of a saved file."""
    parts = read_records(path)
    assert any(old in part for part in parts.values())
    write_records(
        path,
        {k: part.replace(old, new) if k.endswith(".pkl") else part for k, part in parts.items()},
    )


def test_tensors_and_plain_values_come_back(tmp_path):
    content = {"state_dict": {"a": torch.arange(3)}, "meta": {"epoch": 3, "classes": ("x", "y")}}
    loaded = load_checkpoint_file(save(content, tmp_path))
    assert torch.equal(loaded["state_dict"]["a"], torch.arange(3))
    assert loaded["meta"] == content["meta"]


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}], ids=str)
def test_mmengines_messages_come_back(tmp_path, options):
    hub = MessageHub("test_load")
    for value in (0.5, 1.5):
        hub.update_scalar("train/loss", value)
    hub.update_info("best", np.float64(0.25))
    path = save({"message_hub": hub.state_dict()}, tmp_path, **options)
    messages = load_checkpoint_file(path)["message_hub"]
    buffer = messages["log_scalars"]["train/loss"]
    assert buffer.mean() == 1.0
    assert buffer.statistics("max") == 1.5
    assert buffer.current() == 1.5
    assert messages["runtime_info"]["best"] == 0.25
    restored = MessageHub("test_load_restored")
    restored.load_state_dict(messages)
    assert restored.get_scalar("train/loss").data[0].tolist() == [0.5, 1.5]


@pytest.mark.parametrize("name", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_arrays_of_numpy_1_and_2_come_back(tmp_path, name):
    path = save({"array": np.arange(3.0), "scalar": np.int64(7)}, tmp_path)
    written = "numpy._core" if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else "numpy.core"
    rewrite_pickle(path, f"{written}.multiarray".encode(), name.encode())
    loaded = load_checkpoint_file(path)
    assert loaded["array"].tolist() == [0, 1, 2]
    assert loaded["scalar"] == 7


@pytest.mark.parametrize("dtype", ["?", "u1", "i8", "f2", "f4", "f8", "U3", "S3"])
def test_arrays_of_numbers_and_strings_come_back(tmp_path, dtype):
    array = np.array([0, 1], dtype=dtype)
    loaded = load_checkpoint_file(save({"array": array}, tmp_path))["array"]
    assert loaded.dtype == array.dtype
    assert (loaded == array).all()


@pytest.mark.parametrize("dtype", ["O", [("a", "f4")], "M8[s]"], ids=["object", "struct", "time"])
def test_other_arrays_are_refused(tmp_path, dtype):
    with pytest.raises(CheckpointError, match="no plain data: an array of") as raised:
        load_checkpoint_file(save({"array": np.zeros(2, dtype=dtype)}, tmp_path))
    assert "weights_only" not in str(raised.value)  # no advice to read it unsafely


def test_nested_configs_come_back_as_dicts(tmp_path):
    loaded = load_checkpoint_file(save({"cfg": ConfigDict(a=dict(b=1))}, tmp_path))
    assert loaded["cfg"] == {"a": {"b": 1}}
    assert type(loaded["cfg"]) is dict


def test_the_config_of_microsofts_scripts_comes_back_as_a_dict(tmp_path, monkeypatch):
    """Their checkpoints hold a yacs node, a dict with attributes."""
    yacs = ModuleType("yacs.config")

    class CfgNode(dict):
        pass

    CfgNode.__module__, CfgNode.__qualname__ = "yacs.config", "CfgNode"
    yacs.CfgNode = CfgNode
    monkeypatch.setitem(sys.modules, "yacs", ModuleType("yacs"))
    monkeypatch.setitem(sys.modules, "yacs.config", yacs)
    node = CfgNode(MODEL=CfgNode(TYPE="swin"))
    node.__immutable__ = True
    path = save({"model": {"a": torch.zeros(1)}, "config": node}, tmp_path)
    monkeypatch.undo()
    loaded = load_checkpoint_file(path)
    assert loaded["config"] == {"MODEL": {"TYPE": "swin"}}
    assert type(loaded["config"]) is OrderedDict


def test_the_arguments_of_timms_scripts_come_back(tmp_path):
    path = save({"args": argparse.Namespace(model="swin", lr=0.1)}, tmp_path)
    assert load_checkpoint_file(path)["args"].lr == 0.1


@pytest.mark.parametrize("suffix", ["safetensors", "pth", "bin"])
def test_safetensors_are_read_under_any_name(tmp_path, suffix):
    path = tmp_path / f"weights.{suffix}"
    save_file({"a": torch.arange(3), "b": torch.zeros(2, dtype=torch.bfloat16)}, path)
    loaded = load_checkpoint_file(path, map_location=torch.device("cpu"))
    assert torch.equal(loaded["a"], torch.arange(3))
    assert loaded["b"].dtype == torch.bfloat16
    assert origin_of(loaded) == str(path)


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_torchs_files_are_read_under_any_name(tmp_path, suffix):
    path = save({"a": torch.arange(3)}, tmp_path).rename(tmp_path / f"weights.{suffix}")
    assert torch.equal(load_checkpoint_file(path)["a"], torch.arange(3))


def test_a_pickle_of_detectron2_is_read_as_tensors(tmp_path):
    path = tmp_path / "model_final.pkl"
    model = {"backbone.a": np.arange(3.0), "backbone.b": np.float32([[1], [2]])}
    content = {"model": model, "__author__": "third_party", "matching_heuristics": True}
    for protocol in (2, 4):
        path.write_bytes(pickle.dumps(content, protocol))
        loaded = load_checkpoint_file(path)
        assert loaded["model"]["backbone.a"].tolist() == [0, 1, 2]
        assert loaded["model"]["backbone.b"].dtype == torch.float32
        assert (loaded["__author__"], loaded["matching_heuristics"]) == ("third_party", True)


@pytest.mark.parametrize("write", [save_file, torch.save], ids=["safetensors", "pth"])
def test_weights_in_several_files_are_read_by_their_index(tmp_path, write):
    write({"a": torch.arange(3), "left": torch.zeros(1)}, tmp_path / "part-1")
    write({"b": torch.ones(2)}, tmp_path / "part-2")
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": {"a": "part-1", "b": "part-2"}}))
    loaded = load_checkpoint_file(path)
    assert loaded.keys() == {"a", "b"}
    assert torch.equal(loaded["a"], torch.arange(3)) and torch.equal(loaded["b"], torch.ones(2))
    (tmp_path / "part-2").unlink()
    with pytest.raises(CheckpointError, match="1 of its 2 files are missing beside it: part-2"):
        load_checkpoint_file(path)


def test_plain_python_beside_weights_comes_back(tmp_path):
    content = {
        "out": pathlib.Path("/a/b"),
        "windows": pathlib.PureWindowsPath("a\\b"),
        "losses": defaultdict(list, {"x": [1.5]}),
        "order": OrderedDict(b=1, a=2),
        "counts": Counter("aab"),
        "last": deque([1, 2], maxlen=2),
        "when": datetime.datetime(2024, 2, 29, 12, 30),
        "names": {"x", "y"},
        "raw": (b"", b"\xff\x00", bytearray(b"a")),
        "args": SimpleNamespace(lr=0.1),
        "sizes": torch.Size([1, 2]),
        "types": (torch.float16, np.dtype("f4"), torch.device("cpu")),
        "numbers": (1j, 2**70, range(3), slice(1, None)),
    }
    for old in (False, True):
        path = save(content, tmp_path, _use_new_zipfile_serialization=not old)
        loaded = load_checkpoint_file(path)
        assert loaded == content
        assert loaded["losses"]["new"] == [] and loaded["last"].maxlen == 2


@pytest.mark.parametrize("share", [0.3, 0.99])
def test_a_truncated_safetensors_file_says_so(tmp_path, share):
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.zeros(1000)}, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match="safetensors cannot read it.*is it whole") as raised:
        load_checkpoint_file(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_without_safetensors_the_error_says_what_to_install(tmp_path, monkeypatch):
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(CheckpointError, match="pip install safetensors"):
        load_checkpoint_file(path)


@pytest.mark.parametrize("strategy", ["cos", "linear"])
def test_one_cycle_schedules_come_back(tmp_path, strategy):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    schedule = OneCycleLR(optimizer, eta_max=0.1, total_steps=10, anneal_strategy=strategy)
    state = load_checkpoint_file(save({"s": schedule.state_dict()}, tmp_path))["s"]
    assert state["anneal_func"](0.0, 1.0, 0.5) == schedule.anneal_func(0.0, 1.0, 0.5)


def history_with(value):
    buffer = HistoryBuffer()
    buffer.extra = value
    return buffer


# What asks for a call that creates the file `marker`, and the function it is refused for.
COMMANDS = {
    "system": (lambda marker: Call(os.system, (f"touch {marker}",)), r"\w+\.system"),
    "eval": (lambda marker: Call(eval, (f"open({str(marker)!r}, 'w')",)), "eval"),
    "open": (lambda marker: Call(open, (str(marker), "w")), r"(_?io\.)?open"),
    "history": (lambda marker: history_with(Call(os.mkdir, (str(marker),))), r"\w+\.mkdir"),
}


@pytest.mark.parametrize("suffix", ["pth", "bin", "safetensors"])
@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}], ids=str)
@pytest.mark.parametrize("name", COMMANDS)
def test_code_is_refused_by_name_and_never_executed(tmp_path, name, options, suffix):
    marker = tmp_path / "executed"
    command, function = COMMANDS[name]
    content = {"state_dict": {"a": torch.zeros(1)}, "extra": command(marker)}
    path = save(content, tmp_path, **options).rename(tmp_path / f"weights.{suffix}")
    with pytest.raises(
        CheckpointError, match=f"it carries code: it asks for {function},"
    ) as raised:
        load_checkpoint_file(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not marker.exists()
    with open(path, "rb") as file:
        torch.load(file, weights_only=False)  # else this test would prove nothing
    assert marker.exists()


@pytest.mark.parametrize("method", ["update", "__init__", "__class__"])
def test_getattr_knows_only_the_methods_that_mmengine_saves(tmp_path, method):
    path = save({"extra": Call(getattr, (HistoryBuffer, method))}, tmp_path)
    with pytest.raises(CheckpointError, match=rf"it asks for getattr\(.*{method}"):
        load_checkpoint_file(path)


def test_the_environment_cannot_switch_safety_off(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    marker = tmp_path / "executed"
    with pytest.raises(CheckpointError, match="carries code"):
        load_checkpoint_file(save({"a": Call(open, (str(marker), "w"))}, tmp_path))
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"", "the file is empty"),
        (b"\n<!DOCTYPE html><html>Not found</html>", "it is an HTML page"),
        (b"<html><body>Sign in</body></html>", "it is an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS pointer"),
        (b"\x1f\x8b\x08", "it is compressed by gzip"),
        (b"\x93NUMPY\x01", "it is an array of NumPy"),
        (b"GGUF\x03", "it is a file of GGUF"),
        (b"garbage", "it cannot be read; is it a checkpoint"),
        (pickle.dumps([1], protocol=4), "it holds a list, wanted a dict"),
        (bytes(range(256)) * 8, "it cannot be read"),
    ],
    ids=["empty", "html", "html-tag", "lfs", "gzip", "npy", "gguf", "garbage", "pickle", "bytes"],
)
def test_what_is_no_checkpoint_is_refused_in_one_line(tmp_path, content, wanted):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=wanted) as raised:
        load_checkpoint_file(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_truncated_file_says_so(tmp_path, share):
    path = save({"state_dict": {"a": torch.zeros(1000)}}, tmp_path)
    content = path.read_bytes()
    kept = int(len(content) * share)
    path.write_bytes(content[:kept])
    with pytest.raises(CheckpointError, match=f"truncated at {kept} bytes"):
        load_checkpoint_file(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_file_of_the_old_format_is_refused(tmp_path, share):
    content = {"state_dict": {"a": torch.zeros(1000)}}
    path = save(content, tmp_path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CheckpointError, match=r"fewer than its tensors|it is truncated"):
        load_checkpoint_file(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"nothing\.pth: there is no such file"):
        load_checkpoint_file(tmp_path / "nothing.pth")
    with pytest.raises(CheckpointError, match="it is a folder"):
        load_checkpoint_file(tmp_path)


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save({"a": 1}, tmp_path)
    assert load_checkpoint_file("~/weights.pth") == {"a": 1}


def test_tensors_remember_their_file(tmp_path):
    path = save({"state_dict": {"a": torch.zeros(1)}, "meta": {}}, tmp_path)
    state = load_checkpoint_file(path)["state_dict"]
    assert origin_of({"b": 1, "renamed": state["a"]}) == str(path)
    assert origin_of({"a": state["a"].clone()}) is None
    assert origin_of({}) is None


def test_buffers_that_are_no_file_are_not_taken():
    with pytest.raises(TypeError):
        load_checkpoint_file(io.BytesIO())
