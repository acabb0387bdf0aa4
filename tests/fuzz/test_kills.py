"""What a training does at signals, at the loss of a rank or a worker, and when it is resumed."""

import functools
import os
import random
import re
import signal
import socket
import threading
import time
from datetime import timedelta

import pytest
import torch.distributed as dist
from fuzz_kills import make_job, try_kills, wait
from kill_jobs import differences, fork, import_all, is_alive, train_job
from kill_task import write_kill_config
from torch.utils.data import DataLoader

from swin_mm.cli.main import run_command
from swin_mm.engine import rank_watch, stop_signals

TRAINING = """
train_cfg = dict(by_epoch=True, max_epochs={epochs}, val_interval=1)
train_dataloader.update(num_workers={num_workers}, batch_size={batch})
val_dataloader['batch_size'] = {batch}
default_hooks['curves'] = None  # drawing takes longer than training
default_hooks['checkpoint'].update(max_keep_ckpts=1, save_best='toy/error', rule='less')
custom_hooks = [dict(type='RecordLosses'), {signal}]
"""
LAUNCHER_SECONDS = 60.0


def slow(parameter):
    return pytest.param(parameter, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What trainings that nobody stops leave, by their number of ranks."""
    import_all()
    return {}


class Trainings:
    """Runs the toy task in one folder, again and again, with `options` of `train`."""

    def __init__(self, folder, undisturbed, options=()):
        self.folder, self.work_dir, self.known = folder, folder / "work", undisturbed
        self.output, self.options = folder / "output", options

    def start(self, ranks=1, num_workers=0, epochs=2, **at):
        """Starts a training; `at` are arguments of `SignalOnce`, by default no signal comes."""
        at = {"number": 0, "step": 0, **at}
        batch = 4 // ranks
        send = dict(type="SignalOnce", **at)
        extra = TRAINING.format(num_workers=num_workers, batch=batch, epochs=epochs, signal=send)
        config = write_kill_config(self.folder, extra)
        self.job = train_job(config, "toy", ranks, self.options)
        self.output.unlink(missing_ok=True)
        self.output.touch()
        return self.job.start(self.work_dir, self.output)

    def run(self, **kwargs):
        """How the processes of a training ended, and what they printed."""
        ends = wait(self.start(**kwargs), LAUNCHER_SECONDS)
        return ends, self.output.read_text()

    def assert_resumes(self, ranks=1):
        """A resume leaves to the bit what a training that was left alone leaves."""
        kind = (ranks, *self.options)
        if kind not in self.known:
            alone = Trainings(self.folder / "alone", self.known, self.options)
            alone.folder.mkdir()
            ends, text = alone.run(ranks=ranks)
            assert set(ends) == {"0"}, text
            self.known[kind] = alone.job.describe(alone.work_dir)
        ends, text = self.run(ranks=ranks)
        assert set(ends) == {"0"}, text
        assert differences(self.job.describe(self.work_dir), self.known[kind]) == []


@pytest.fixture
def trainings(tmp_path, undisturbed):
    return Trainings(tmp_path, undisturbed)


@pytest.fixture
def sharded(tmp_path, undisturbed):
    return Trainings(tmp_path, undisturbed, ["--shard"])


def errors(text):
    return [line for line in text.splitlines() if line.startswith("swin-mm: error: ")]


STOPPING = [signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2]


@pytest.mark.parametrize(
    "number",
    [number if number == signal.SIGTERM else slow(number) for number in STOPPING],
    ids=lambda number: number.name,
)
def test_a_signal_saves_and_ends_with_its_status(trainings, number):
    """Also where its workers get it too, from a terminal, torchrun or `timeout`."""
    ends, text = trainings.run(num_workers=1, number=int(number), step=3, workers="all")
    assert ends == [str(128 + number)]
    saved = trainings.work_dir / "interrupted.pth"
    assert f"Stopped by {number.name} after step 3, saved in {saved}; --resume goes on" in text
    if number == signal.SIGTERM:
        trainings.assert_resumes()


@pytest.mark.slow
@pytest.mark.parametrize("targets", [slow((0,)), (1,), slow((0, 1))], ids=str)
def test_ranks_stop_after_the_same_step(trainings, targets):
    ends, text = trainings.run(ranks=2, number=int(signal.SIGTERM), step=2, targets=targets)
    assert ends == ["143", "143"]
    assert "Stopped by SIGTERM after step 3, saved in" in text
    trainings.assert_resumes(ranks=2)


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, slow(1)])
def test_a_lost_rank_ends_the_others_in_one_line(trainings, lost):
    began = time.monotonic()
    ends, text = trainings.run(ranks=2, number=int(signal.SIGKILL), step=6, targets=(lost,))
    assert time.monotonic() - began < LAUNCHER_SECONDS
    assert ends == (["-9", "1"] if lost == 0 else ["1", "-9"])
    (line,) = errors(text)
    assert re.search(rf"rank {lost} \(process \d+\) has ended, .*\(train --resume goes on", line)
    assert "Traceback" not in text
    trainings.assert_resumes(ranks=2)


@pytest.mark.slow
@pytest.mark.parametrize("targets", [(1,), slow((0, 1))], ids=str)
def test_sharded_ranks_stop_after_the_same_step_and_save_one_folder(sharded, targets):
    ends, text = sharded.run(ranks=2, number=int(signal.SIGTERM), step=2, targets=targets)
    assert ends == ["143", "143"]
    saved = sharded.work_dir / "interrupted"
    assert f"Stopped by SIGTERM after step 3, saved in {saved}; --resume goes on" in text
    assert {path.name for path in saved.glob("*.distcp")} == {"__0_0.distcp", "__1_0.distcp"}
    sharded.assert_resumes(ranks=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workers", "ends", "reason"),
    [
        ("", ["1", "-9"], r"rank 1 \(process \d+\) has ended, .*\(train --resume goes on"),
        ("one", ["1", "1"], r"a worker of the data loader (\(process \d+\) )?was ended"),
    ],
    ids=["rank", "worker"],
)
def test_a_lost_rank_or_worker_ends_a_sharded_run(sharded, workers, ends, reason):
    at = dict(number=int(signal.SIGKILL), step=6, targets=(1,), workers=workers)
    found, text = sharded.run(ranks=2, num_workers=int(bool(workers)), **at)
    assert found == ends
    assert any(re.search(reason, line) for line in errors(text)), text
    assert "Traceback" not in text
    assert (sharded.work_dir / "epoch_1" / "index.pth").is_file()
    sharded.assert_resumes(ranks=2)


@pytest.mark.slow
def test_a_lost_worker_ends_the_run_in_one_line(trainings):
    ends, text = trainings.run(num_workers=1, number=int(signal.SIGKILL), step=2, workers="one")
    assert ends == ["1"]
    (line,) = errors(text)
    assert "a worker of the data loader (process" in line
    assert "lower num_workers or batch_size; train --resume goes on" in line
    assert "Traceback" not in text
    trainings.assert_resumes()


def test_ranks_that_cannot_meet_end_in_one_line(trainings, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = ("127.0.0.1", str(taken.getsockname()[1]))
        for name, value in zip(("MASTER_ADDR", "MASTER_PORT"), address, strict=True):
            monkeypatch.setenv(name, value)
        for name, value in dict(RANK="0", LOCAL_RANK="0", WORLD_SIZE="2").items():
            monkeypatch.setenv(name, value)
        config = write_kill_config(trainings.folder, "")
        options = [str(config), "--work-dir", str(trainings.work_dir), "--launcher", "pytorch"]
        assert wait([fork(lambda: run_command("train", options), trainings.output)]) == ["1"]
    (line,) = errors(trainings.output.read_text())
    assert f"the processes of this run cannot meet at {':'.join(address)} (" in line


@pytest.mark.parametrize("has_thread", [False, True])
def test_a_worker_ends_at_the_sigterm_of_its_process_alone(tmp_path, has_thread):
    """Also where a library, such as wandb, starts a thread in each fork."""

    def run():
        if has_thread:
            idle = functools.partial(threading.Thread, target=time.sleep, args=(60,), daemon=True)
            os.register_at_fork(after_in_child=lambda: idle().start())
        iterator = iter(DataLoader(range(100), num_workers=1))
        worker = iterator._workers[0]
        assert next(iterator) == 0  # so that the worker runs
        other = fork(lambda: os.kill(worker.pid, signal.SIGTERM) or 0, tmp_path / "other")
        assert wait([other]) == ["0"]
        worker.join(1.5)
        assert worker.is_alive() and next(iterator) == 1
        worker.terminate()
        worker.join(10)
        return worker.exitcode

    assert wait([fork(run, tmp_path / "out")]) == ["0"], (tmp_path / "out").read_text()


@pytest.fixture
def start_ranks(tmp_path):
    """Starts two forks that run a function of their rank under a `RankWatch`."""

    def watch(function, rank):
        dist.init_process_group("gloo", f"file://{tmp_path}/store", rank=rank, world_size=2)
        with rank_watch.RankWatch():
            function(rank)
        return 0

    def start(function):
        return [fork(lambda rank=rank: watch(function, rank), tmp_path / "out") for rank in (0, 1)]

    return start


@pytest.mark.slow
def test_a_rank_that_waits_for_a_lost_one_is_ended(start_ranks, tmp_path, monkeypatch):
    """As a GPU waits in a collective of NCCL, which does not notice the loss."""
    monkeypatch.setattr(rank_watch, "GRACE_SECONDS", 0.1)
    assert wait(start_ranks(lambda rank: os._exit(3) if rank else time.sleep(60))) == ["1", "3"]
    (line,) = errors((tmp_path / "out").read_text())
    assert line.startswith("swin-mm: error: rank 1 (process ")


@pytest.mark.slow
def test_ranks_say_where_they_were_when_one_hangs(start_ranks, tmp_path, monkeypatch):
    monkeypatch.setattr(rank_watch, "GRACE_SECONDS", 0.1)

    def read_forever():
        threading.Event().wait()

    def meet(rank):
        group = dist.new_group(timeout=timedelta(seconds=5))
        read_forever() if rank else dist.barrier(group)

    assert wait(start_ranks(meet)) == ["70", "1"]  # 70 of any error in these forks
    text = (tmp_path / "out").read_text()
    assert re.search(r"RankTimeoutError: rank 0 waited 5 s for the others in .*barrier \(", text)
    (line,) = errors(text)
    assert re.search(r"rank 0 \(process \d+\) has ended, .*; rank 1 was in .*read_forever", line)


def test_a_lost_data_worker_is_no_lost_rank(start_ranks, tmp_path):
    """Its connection to the rank that reads from it breaks like one between ranks."""

    def read(rank):
        if not rank:
            dist.barrier()
        try:
            raise ConnectionResetError(104, "Connection reset by peer")
        except ConnectionResetError:
            raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed. ")  # noqa: B904

    assert wait(start_ranks(read)) == ["70", "70"]
    text = (tmp_path / "out").read_text()
    (lost,) = re.findall(r"LostRankError: (.*)", text)
    assert lost.startswith("rank 1 (process ")
    assert re.search(r"^RuntimeError: DataLoader worker", text, re.MULTILINE)


def test_a_rank_that_is_done_waits_for_the_others(start_ranks, monkeypatch):
    monkeypatch.setattr(rank_watch, "GRACE_SECONDS", 0.1)
    assert wait(start_ranks(lambda rank: time.sleep(2.0 * (rank == 0)))) == ["0", "0"]


@pytest.mark.slow
def test_ranks_are_asked_to_stop_when_torchrun_is_killed(trainings, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    ranks = trainings.folder / "ranks"

    def torchrun():
        ranks.write_text(" ".join(map(str, trainings.start(ranks=2, epochs=1000))))
        losses = trainings.work_dir / "records" / "losses"
        while not losses.exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)

    assert wait([fork(torchrun, trainings.folder / "torchrun")]) == ["-9"]
    limit = time.monotonic() + LAUNCHER_SECONDS
    while any(map(is_alive, ranks.read_text().split())) and time.monotonic() < limit:
        time.sleep(0.1)
    assert (trainings.work_dir / "last_checkpoint").exists()
    assert "Stopped by SIGTERM after step" in trainings.output.read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("repeat_seconds", "end"), [(0.0, "-15"), (60.0, "0")])
def test_a_second_signal_ends_at_once_unless_it_repeats_the_first(
    tmp_path, monkeypatch, repeat_seconds, end
):
    monkeypatch.setattr(stop_signals, "REPEAT_SECONDS", repeat_seconds)

    def run():
        with stop_signals.StopSignals(runner=None) as signals:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.01)
            return 0 if signals.agree() == signal.SIGTERM else 1

    assert wait([fork(run, tmp_path / "out")]) == [end]
    assert "SIGTERM: saving and stopping" in (tmp_path / "out").read_text()


def test_signals_that_are_ignored_stay_ignored(tmp_path):
    """As nohup has the end of a terminal ignored."""

    def run():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with stop_signals.StopSignals(runner=None) as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            return signals.agree()

    assert wait([fork(run, tmp_path / "out")]) == ["0"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [slow("train"), slow("ranks"), slow("shard"), "shapes", "convert"])
def test_random_kills(tmp_path, kind):
    """A few of what `fuzz_kills.py` does for hours."""
    draw = random.Random(kind)
    for result in try_kills(make_job(kind, draw, tmp_path / "job"), tmp_path / "job", draw, 1):
        assert result["right_end"] and not result["workers"], result
        assert not result["lost"] and result["differs"] == [], result
