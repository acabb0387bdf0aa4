"""Two agents of torchrun with a work folder each: what `two_nodes.py` does between machines."""

import signal
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from fuzz_kills import wait
from kill_jobs import differences, fork, import_all, train_job
from kill_task import write_kill_config
from ranks import run_ranks
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.nn.parallel import DistributedDataParallel

from swin_mm.checkpoint import CheckpointError
from swin_mm.cli.main import run_command
from swin_mm.engine.rank_state import check_same_start
from swin_mm.engine.work_folders import find_writers, share_newest

TRAINING = """
train_cfg = dict(by_epoch=True, max_epochs=2, val_interval=1)
train_dataloader.update(num_workers={num_workers}, batch_size=2)
val_dataloader['batch_size'] = 3
default_hooks['curves'] = None
custom_hooks = [dict(type='RecordLosses'), {signal}]
"""
LIMIT = 120.0  # seconds that a node may take longer than the other


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What two ranks with one folder leave when nobody stops them."""
    import_all()
    folder = tmp_path_factory.mktemp("undisturbed")
    training = TRAINING.format(num_workers=0, signal="")
    job = train_job(write_kill_config(folder, training), "toy", ranks=2)
    assert wait(job.start(folder / "work", folder / "output"), LIMIT) == ["0", "0"]
    return job.describe(folder / "work")


def run_node(number, port, config, folder):
    """Runs an agent of torchrun with one process, as a fork of this one, which has all imported."""

    def train():
        options = [str(config), "--resume", "--launcher", "pytorch", "--work-dir", str(folder)]
        if status := run_command("train", options):
            sys.exit(status)

    launch = LaunchConfig(
        min_nodes=2,
        max_nodes=2,
        nproc_per_node=1,
        run_id="test",
        rdzv_backend="c10d",
        rdzv_endpoint=f"127.0.0.1:{port}",
        rdzv_configs={"is_host": number == 0},
        max_restarts=1,
        start_method="fork",
        monitor_interval=0.1,
        local_addr="127.0.0.1",
    )
    elastic_launch(launch, train)()
    return 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "workers"),
    [(signal.SIGKILL, ""), (signal.SIGTERM, ""), (signal.SIGKILL, "one")],
    ids=["rank dies", "SIGTERM to a rank", "data worker dies"],
)
def test_nodes_start_again_and_resume(tmp_path, monkeypatch, undisturbed, number, workers):
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")  # as in tools/dist_run.sh
    once = (
        f"dict(type='SignalOnce', number={int(number)}, step=6, targets=(1,), workers='{workers}')"
    )
    training = TRAINING.format(num_workers=int(bool(workers)), signal=once)
    config = write_kill_config(tmp_path, training)
    port = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False).port
    folders, output = [tmp_path / f"node_{node}" for node in range(2)], tmp_path / "output"
    nodes = [
        fork(lambda node=node: run_node(node, port, config, folders[node]), output)
        for node in range(2)
    ]
    assert wait(nodes, LIMIT) == ["0", "0"], output.read_text()
    losses = {}
    for folder in folders:
        for line in (folder / "records" / "losses").read_text().splitlines():
            step, *values = line.split()
            losses.setdefault(step, set()).add(tuple(values))
        state = torch.load(folder / "epoch_2.pth", weights_only=False)["state_dict"]
        found = {name: (value.dtype, value.tolist()) for name, value in state.items()}
        assert differences(found, undisturbed["epoch_2.pth"]["state_dict"]) == []
    found = {step: sorted(values) for step, values in losses.items()}
    assert differences(found, undisturbed["losses"]) == []


@pytest.mark.parametrize("groups", [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 2)], ids=str)
def test_the_first_process_of_each_folder_writes(tmp_path, groups):
    folders = [tmp_path / f"folder_{group}" for group in groups]
    found = run_ranks(lambda rank: find_writers(folders[rank]), 3, tmp_path / "ranks")
    assert found == [(sorted({groups.index(group) for group in groups}), [])] * 3
    assert not [path for folder in folders for path in folder.iterdir()]


@pytest.mark.parametrize(
    ("steps", "newest"),
    [
        ({0: 4, 1: 8}, 8),
        ({0: 8, 1: 4}, 8),
        ({1: 4}, 4),
        ({0: 4, 1: 4}, 4),
        ({}, None),
    ],
    ids=str,
)
def test_all_machines_get_the_checkpoint_that_is_furthest(tmp_path, monkeypatch, steps, newest):
    monkeypatch.setattr("swin_mm.engine.work_folders.CHUNK_BYTES", 100)
    folders = [tmp_path / "a", tmp_path / "b", tmp_path / "b"]
    saved = {}
    for folder, step in steps.items():
        folders[folder].mkdir()
        saved[folder] = folders[folder] / f"iter_{step}.pth"
        torch.save({"meta": {"iter": step}, "of": folder}, saved[folder])

    def share(rank):
        own = saved.get(rank) if rank < 2 else None
        found = share_newest(own, folders[rank], [0, 1])
        return found and (str(found.parent), torch.load(found)["meta"]["iter"])

    found = [result for result, _ in run_ranks(share, 3, tmp_path / "ranks")]
    assert found[:2] == [newest and (str(folders[rank]), newest) for rank in range(2)]
    assert found[2] is None


@pytest.mark.parametrize("change", [None, "weights", "step"])
def test_ranks_that_start_differently_are_refused(tmp_path, change):
    def start(rank):
        model = DistributedDataParallel(torch.nn.Linear(2, 1))
        is_other = rank == 1
        if is_other and change == "weights":
            model.module.weight.data[0, 1] += 1
        step = 8 if is_other and change == "step" else 4
        try:
            check_same_start(SimpleNamespace(model=model, epoch=1, iter=step))
        except CheckpointError as error:
            return str(error)

    found = [result for result, _ in run_ranks(start, 2, tmp_path / "ranks")]
    assert found[0] == found[1]
    step = 8 if change == "step" else 4
    assert not change or f"rank 1 starts at step {step} and rank 0 at step 4" in found[0]
    assert change or found[0] is None
