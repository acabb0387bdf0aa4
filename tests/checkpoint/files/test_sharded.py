"""Folders of several processes: read whole, or refused in one line, and nothing is executed."""

import os
import pickle
import shutil
from collections import OrderedDict

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from swin_mm.checkpoint import CheckpointError, load_checkpoint_file
from swin_mm.checkpoint.files.sharded import INDEX
from swin_mm.engine.checkpoint_files import (
    find_damage,
    newest_checkpoint,
    remove_partial_files,
    replace_folder,
)
from swin_mm.engine.sharded_checkpoint import make_file, write_folder

WORLD = 2


def make_checkpoint():
    """Of sizes that two processes cannot halve, down to one row."""
    generator = torch.Generator().manual_seed(0)
    weight, bias, one = (torch.randn(s, generator=generator) for s in ((5, 3), (4,), (1, 2)))
    return {
        "meta": {"epoch": 1, "iter": 8, "name": "run"},
        "state_dict": OrderedDict(weight=weight, bias=bias, steps=torch.tensor(8)),
        "optimizer": {"state": {0: {"momentum": one}}, "param_groups": [{"params": [0]}]},
        "several": [{"moment": weight.double()}],
    }


def write(rank, folder):
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=WORLD)
    mesh, checkpoint = init_device_mesh("cpu", (WORLD,)), make_checkpoint()
    places = [
        *((checkpoint["state_dict"], key) for key in ("weight", "bias")),
        (checkpoint["optimizer"]["state"][0], "momentum"),
        (checkpoint["several"][0], "moment"),
    ]
    for place, key in places:
        place[key] = distribute_tensor(place[key], mesh, [Shard(0)], src_data_rank=None)
    write_folder(folder / "epoch_1", checkpoint)
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    mp.start_processes(write, (folder,), WORLD, start_method="fork")
    return folder / "epoch_1"


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "epoch_1")


def assert_equal(found, wanted):
    assert type(found) is type(wanted)
    if isinstance(wanted, dict):
        assert list(found) == list(wanted)
        for key, value in wanted.items():
            assert_equal(found[key], value)
    elif isinstance(wanted, list):
        for ours, theirs in zip(found, wanted, strict=True):
            assert_equal(ours, theirs)
    elif isinstance(wanted, torch.Tensor):
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    else:
        assert found == wanted


def test_everything_is_read_whole(folder, tmp_path):
    assert_equal(load_checkpoint_file(folder), make_checkpoint())
    assert {path.name for path in folder.glob("*.distcp")} == {"__0_0.distcp", "__1_0.distcp"}
    assert os.listdir(folder.parent) == ["epoch_1"]
    make_file(folder, tmp_path / "one.pth")
    assert_equal(load_checkpoint_file(tmp_path / "one.pth"), make_checkpoint())


def test_pytorchs_own_tool_reads_the_same_tensors(folder, tmp_path):
    dcp_to_torch_save(folder, tmp_path / "theirs.pth")
    theirs = torch.load(tmp_path / "theirs.pth", weights_only=True)
    wanted = make_checkpoint()
    assert torch.equal(theirs["state_dict.weight"], wanted["state_dict"]["weight"])
    momentum = wanted["optimizer"]["state"][0]["momentum"]
    assert torch.equal(theirs["optimizer.state.0.momentum"], momentum)


def flip(path, share):
    content = bytearray(path.read_bytes())
    content[int(len(content) * share)] ^= 0xFF
    path.write_bytes(content)


DAMAGES = {
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "absent": os.remove,
    "changed at the start": lambda path: flip(path, 0),
    "changed within": lambda path: flip(path, 0.55),
}


@pytest.mark.parametrize("name", [INDEX, "__0_0.distcp", "__1_0.distcp"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_and_passed_over(folder, name, damage):
    older = shutil.copytree(folder, folder.with_name("epoch_0"))
    DAMAGES[damage](folder / name)
    reason = find_damage(folder)
    if reason is None:  # a byte that nothing reads, such as padding of an archive
        assert_equal(load_checkpoint_file(folder), make_checkpoint())
        return
    with pytest.raises(CheckpointError, match=r"cannot load checkpoint .*epoch_1: "):
        load_checkpoint_file(folder)
    assert newest_checkpoint(folder.parent, ["epoch_{}.pth"]) == older


def test_the_newest_whole_one_is_found_among_files_and_folders(folder):
    file = folder.with_name("epoch_2.pth")
    torch.save({}, file)
    for times, newest in (((1, 2), file), ((2, 1), folder)):
        for path, seconds in zip((folder, file), times, strict=True):
            os.utime(path, (seconds, seconds))
        assert newest_checkpoint(folder.parent, ["epoch_{}.pth"]) == newest


class Code:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_a_pickle_of_metadata_is_not_read(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (folder / ".metadata").write_bytes(pickle.dumps(Code()))
    assert_equal(load_checkpoint_file(folder), make_checkpoint())
    assert not os.path.exists("executed")


@pytest.mark.parametrize("name", [INDEX, "__0_0.distcp"])
def test_code_is_not_executed(folder, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    if name == INDEX:
        torch.save({"checkpoint": Code(), "divided": []}, folder / INDEX)
    else:
        index = torch.load(folder / INDEX, weights_only=False)
        torch.save(Code(), folder / "code.distcp")
        length = (folder / "code.distcp").stat().st_size
        keys, shape, _ = index["divided"][0]
        index["divided"][0] = (keys, shape, [((0, 0), "code.distcp", 0, length)])
        torch.save(index, folder / INDEX)
    with pytest.raises(CheckpointError, match=r"it carries code: it asks for .*mkdir"):
        load_checkpoint_file(folder)
    assert not os.path.exists("executed")


def change(index, **fields):
    """Changes fields of the first part of the first tensor, which is 5 x 3."""
    keys, shape, parts = index["divided"][0]
    (offsets, file, start, length), *others = parts
    part = dict(offsets=offsets, file=file, start=start, length=length)
    part.update({name: value for name, value in fields.items() if name in part})
    parts = [tuple(part.values()), *others]
    index["divided"][0] = (
        fields.get("keys", keys),
        fields.get("shape", shape),
        fields.get("parts", parts),
    )


@pytest.mark.parametrize(
    "fields",
    [
        dict(file="../epoch_1/__0_0.distcp"),
        dict(file="/etc/passwd"),
        dict(offsets=(4, 0)),
        dict(offsets=(0,)),
        dict(offsets=(-1, 0)),
        dict(start=-1),
        dict(start=2**40),
        dict(length=2**61),
        dict(shape=(2**40, 3)),
        dict(shape=(15,)),
        dict(shape=(5, "3")),
        dict(keys=("state_dict", "other")),
        dict(keys=()),
        dict(keys=("meta", "name", "upper")),
        dict(parts=[]),
        dict(parts=None),
    ],
    ids=str,
)
def test_an_index_that_lies_is_refused(folder, fields):
    index = torch.load(folder / INDEX, weights_only=False)
    change(index, **fields)
    torch.save(index, folder / INDEX)
    with pytest.raises(CheckpointError, match="cannot load checkpoint"):
        load_checkpoint_file(folder)
    assert find_damage(folder) is not None


@pytest.mark.parametrize("has_new", [False, True], ids=["moved away", "in its place"])
def test_a_kill_while_a_folder_is_replaced_leaves_one(folder, has_new):
    """Moved away, and not yet or already in place."""
    old = folder.with_name(".epoch_1.replaced")
    os.replace(folder, old)
    if has_new:
        shutil.copytree(old, folder)
    shutil.copytree(old, folder.with_name(".epoch_1.partial"))
    remove_partial_files(folder.parent)
    assert os.listdir(folder.parent) == ["epoch_1"]
    assert_equal(load_checkpoint_file(folder), make_checkpoint())


def test_a_folder_is_replaced(folder):
    new = shutil.copytree(folder, folder.with_name(".epoch_1.partial"))
    index = torch.load(new / INDEX, weights_only=False)
    index["checkpoint"]["meta"]["epoch"] = 2
    torch.save(index, new / INDEX)
    replace_folder(new, folder)
    assert load_checkpoint_file(folder)["meta"]["epoch"] == 2
    assert os.listdir(folder.parent) == ["epoch_1"]
