"""Files that lie, are damaged, or ask for more than data: refused in one line, nothing else."""

import io
import json
import pickle
import struct
import sys
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from torch._utils import _rebuild_tensor_v2
from torch_archives import Call, read_records, write_records

from swin_mm.analysis.predictions import PredictionError, load_predictions
from swin_mm.checkpoint import CheckpointError, load_checkpoint_file
from swin_mm.checkpoint.errors import MAX_MESSAGE
from swin_mm.checkpoint.files.unpickle import MAX_DEPTH

RECONSTRUCT = np.zeros(1).__reduce__()[0]
POINTERS = struct.pack("<q", 0x41414141)


def array(dtype, data, shape=(1,), lying_state=None):
    """An array as NumPy pickles it, of any type and content."""
    dtype = np.dtype(dtype) if lying_state is None else Call(np.dtype, (dtype,), lying_state)
    return Call(RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, shape, dtype, False, data))


def history(values):
    buffer = HistoryBuffer()
    buffer._log_history = values
    return buffer


def tensor(offset=0, size=(4,), stride=(1,), numel=4):
    storage = torch.zeros(numel)._typed_storage()
    return Call(_rebuild_tensor_v2, (storage, offset, size, stride, False, OrderedDict()))


ARRAYS = {
    "objects": array("O", POINTERS),
    "objects-in-a-history": history(array("O", POINTERS)),
    "type-of-objects": array("f8", POINTERS, lying_state=(3, "|", None, None, None, 8, 8, 63)),
    "size-of-a-type": array("f8", POINTERS, lying_state=(3, "<", None, None, None, 2**31, 1, 0)),
    "fields": array("f8", POINTERS, lying_state=(3, "<", None, ("a",), {"a": 1}, 8, 8, 0)),
    "subtype": array(
        "f8", POINTERS, lying_state=(3, "<", (np.dtype("O"), (1,)), None, None, 8, 8, 0)
    ),
    "type-without-a-state": Call(RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, (1,), "O", False, b"")),
    "shape": array("f8", POINTERS, shape=(2**40,)),
    "shape-below-zero": array("f8", POINTERS, shape=(-1,)),
    "shape-that-overflows": array("f8", POINTERS, shape=(2**31, 2**31, 2**31)),
    "no-bytes": array("f8", [1]),
    "called": Call(np.ndarray, ((2**40,),)),
    "type-called": Call(np.dtype, ([("a", "O")],)),
}
TENSORS = {
    "offset": tensor(offset=1),
    "offset-below-zero": tensor(offset=-1),
    "size": tensor(size=(5,)),
    "size-below-zero": tensor(size=(-4,)),
    "size-that-overflows": tensor(size=(2**32, 2**32), stride=(1, 1)),
    "stride": tensor(stride=(2,)),
    "stride-below-zero": tensor(stride=(-1,)),
    "dimensions": tensor(size=(2, 2), stride=(1,)),
    "many-dimensions": tensor(size=(1,) * 65, stride=(1,) * 65),
    "repeated": tensor(size=(2**40,), stride=(0,)),
    "number-as-text": tensor(size=("4",)),
}
OTHERS = {
    "list-in-itself": (loop := []).append(loop) or loop,
    "dict-in-itself": (ring := {}).setdefault("ring", ring),
    "key-of-tuples": {((1,), 2): 3},
    "set-of-arrays": Call(set, ([[1]],)),
    "path-of-a-list": Call(type(__import__("pathlib").PurePosixPath("a")), ([1],)),
    "huge-list": Call(list, (range(2**40),)),
    "huge-bytes": Call(bytes, (2**40,)),
}


def check_refused(path, load=load_checkpoint_file, error=CheckpointError):
    with pytest.raises(error) as raised:
        load(path)
    message = str(raised.value)
    assert str(path) in message and message.isprintable() and len(message) <= MAX_MESSAGE + 4


@pytest.mark.parametrize(
    "options", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "old"]
)
@pytest.mark.parametrize("name", [*ARRAYS, *TENSORS, *OTHERS])
def test_lies_about_memory_are_refused(name, options, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": {"a": (ARRAYS | TENSORS | OTHERS)[name]}}, path, **options)
    check_refused(path)


@pytest.mark.parametrize("name", [*ARRAYS, *OTHERS])
def test_lies_in_predictions_are_refused(name, tmp_path):
    path = tmp_path / "found.pkl"
    path.write_bytes(pickle.dumps([{"scores": (ARRAYS | OTHERS)[name]}]))
    check_refused(path, load_predictions, PredictionError)


# What opens a container and what closes it, with the rest of the value.
NESTED = {"list": (b"]", b"a"), "tuple": (b"", b"\x85"), "dict": (b"}K\x01", b"s")}


@pytest.mark.parametrize("depth", [MAX_DEPTH // 2, MAX_DEPTH + 1, 100_000])
@pytest.mark.parametrize("kind", NESTED)
@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "pickle"])
def test_deep_nesting_is_refused(kind, depth, is_zip, tmp_path):
    start, end = NESTED[kind]
    content = b"\x80\x02}K\x01" + start * depth + b"N" + end * depth + b"s."
    path = tmp_path / "weights.pth"
    if is_zip:
        write_records(path, {"a/data.pkl": content})
    else:
        path.write_bytes(content)
    if depth < MAX_DEPTH:
        assert len(load_checkpoint_file(path)) == 1
    else:
        limit = sys.getrecursionlimit()  # PyTorch's compiler raises it
        check_refused(path)
        assert sys.getrecursionlimit() == limit


def test_json_nested_deeply_is_refused(tmp_path):
    deep = "[" * 100_000 + "]" * 100_000
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(f'{{"weight_map": {deep}}}')
    check_refused(index)
    header = f'{{"a": {deep}}}'.encode()
    path = tmp_path / "weights.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    check_refused(path)


@pytest.mark.parametrize(
    "places", [{"a": "../a.pth"}, {"a": "/etc/passwd"}, {"a": 1}, {"a": None}, {}, [], None]
)
def test_an_index_names_files_beside_it_alone(places, tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.pth")
    index = tmp_path / "inner" / "model.index.json"
    index.parent.mkdir()
    index.write_text(json.dumps({"weight_map": places}))
    check_refused(index)


def test_any_flipped_byte_is_noticed_or_harmless(tmp_path):
    """Of a zip archive, times and padding are not covered by checksums, nor used."""
    content = {"state_dict": {"a": torch.arange(8.0), "b": torch.ones(2)}, "epoch": 3}
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    whole = path.read_bytes()
    noticed = 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        try:
            found = load_checkpoint_file(path)
        except CheckpointError:
            noticed += 1
        else:
            assert found.keys() == content.keys() and found["epoch"] == 3
            for key, value in content["state_dict"].items():
                assert torch.equal(found["state_dict"][key], value), place
    assert noticed > 500


def test_parts_that_overlap_or_lack_are_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"a": torch.arange(8.0)}, path)
    records = read_records(path)
    (data,) = (name for name in records if name.endswith("data/0"))
    for part in ({}, {data: records[data][:-4]}):
        rest = {name: content for name, content in records.items() if name != data}
        check_refused(write_records(path, rest | part))


def test_escapes_in_names_are_shown_as_text(tmp_path):
    escape = "\x1b]0;owned\x07\x1b[31m\u202e"
    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps(io.BytesIO()).replace(b"BytesIO", b"Byt\x1bsIO"))
    check_refused(path)
    torch.save({"state_dict": {escape * 100: torch.zeros(1)}}, path)
    content = load_checkpoint_file(path)
    assert list(content["state_dict"]) == [escape * 100]
    assert str(CheckpointError(escape)).isprintable()
