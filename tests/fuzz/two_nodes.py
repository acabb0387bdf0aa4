"""Trains on two "machines" of two processes each, which share a network but no folder.

    sudo python tests/fuzz/two_nodes.py [--folder FOLDER]

Each machine is a network namespace with a mount of its own, so that both see their own folder under
one path. A run that nobody disturbs is compared with runs in which a process, or a whole machine
with its disk, is lost: torchrun starts the rest again, they resume, and the loss of every step and
the final weights must be equal to the bit. Then both machines measure the result, as one does.

With `NNODES=1:2` the second machine is lost for good: the first must go on alone, as a run that is
resumed on one machine from the same checkpoint. Where the first is lost, which keeps the list of
members, the second must end, and go on when it is started again.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from kill_jobs import differences
from kill_task import write_kill_config

ROOT = Path(__file__).parents[2]
PROCESSES = 2  # of a machine
LIMIT = 1800.0  # seconds for one run
CONFIG = """
train_cfg = dict(by_epoch=True, max_epochs=6, val_interval=1)
train_dataloader.update(num_workers=1, batch_size=2)
val_dataloader['batch_size'] = 3  # the last batches are uneven
test_dataloader = val_dataloader
train_dataloader['dataset']['delay'] = 0.1
test_cfg = dict()
test_evaluator = dict(type='ToyMetric')
default_hooks['curves'] = None
custom_hooks = [dict(type='RecordLosses')]
"""


def run(*command: str | Path) -> str:
    return subprocess.run([*map(str, command)], check=True, capture_output=True, text=True).stdout


class Machine:
    """A network namespace; `disk` is what it sees as `path`."""

    def __init__(self, number: int, folder: Path) -> None:
        self.number, self.path, self.disk = number, folder / "disk", folder / f"disk_{number}"
        self.name, self.address = f"swin{os.getpid()}-{number}", f"10.213.77.{number + 1}"
        self.output = folder / f"output_{number}"

    def connect(self, link: str) -> None:
        run("ip", "netns", "add", self.name)
        run("ip", "link", "set", link, "netns", self.name)
        inside = ["ip", "-n", self.name]
        run(*inside, "addr", "add", f"{self.address}/24", "dev", link)
        for device in (link, "lo"):
            run(*inside, "link", "set", device, "up")
        self.link = link

    def start(self, script: str, *arguments: str | Path, nodes: str = "2") -> None:
        own = dict(NNODES=nodes, NODE_RANK=str(self.number), MASTER_ADDR="10.213.77.1")
        own["PORT"] = "29431"
        own |= dict(MAX_RESTARTS="3", GLOO_SOCKET_IFNAME=self.link, OMP_NUM_THREADS="1")
        tests = ROOT / "tests"
        own["PYTHONPATH"] = f"{tests}:{tests / 'fuzz'}"
        own["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        if self.number or nodes == "1":
            own["TORCHRUN_ARGS"] = f"--local-addr={self.address}"
        self.disk.mkdir(exist_ok=True)
        inside = f'mount --bind {self.disk} {self.path} && cd {self.path} && exec bash "$@"'
        command = ["ip", "netns", "exec", self.name, "unshare", "-m", "bash", "-c", inside, "bash"]
        with self.output.open("a") as output:
            self.process = subprocess.Popen(
                [*command, str(ROOT / "tools" / script), *map(str, arguments)],
                env={**os.environ, **own},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def list_workers(self) -> list[int]:
        """The training processes, not torchrun or the workers of their data loaders."""
        torchrun = self.process.pid
        children = Path(f"/proc/{torchrun}/task/{torchrun}/children").read_text().split()
        return [int(child) for child in children]

    def kill(self) -> None:
        for process in run("ip", "netns", "pids", self.name).split():
            os.kill(int(process), signal.SIGKILL)
        self.process.wait()

    def remove(self) -> None:
        self.kill()
        run("ip", "netns", "del", self.name)


def read_run(folder: Path) -> dict[str, dict]:
    """The losses of each step, in the order in which they were written, and the last weights."""
    losses: dict[str, list] = {}
    for line in (folder / "records" / "losses").read_text().splitlines():
        step, *values = line.split()
        losses.setdefault(step, []).append(tuple(values))
    end = torch.load(folder / "epoch_6.pth", weights_only=False)["state_dict"]
    return {"losses": losses, "weights": {key: value.tolist() for key, value in end.items()}}


class Network:
    """Two machines and a cable."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "disk").mkdir()
        self.config = write_kill_config(folder, CONFIG)
        self.machines = [Machine(number, folder) for number in range(2)]
        links = [f"sw{os.getpid()}{machine.number}"[-14:] for machine in self.machines]
        run("ip", "link", "add", links[0], "type", "veth", "peer", "name", links[1])
        for machine, link in zip(self.machines, links, strict=True):
            machine.connect(link)

    def train(self, name: str, disturb: Callable[[], None] = lambda: None) -> dict:
        """Trains in the folder `name` of each machine; returns what the training leaves."""
        self.start(name)
        disturb()
        self.wait()
        losses: dict[str, set] = {}
        weights = {}
        for machine in self.machines:
            found = read_run(machine.disk / name)
            for step, values in found["losses"].items():
                losses.setdefault(step, set()).update(values)
            weights[str(machine.number)] = found["weights"]
        return {"losses": {step: sorted(each) for step, each in losses.items()}, **weights}

    def start(self, name: str, nodes: str = "2") -> None:
        self.options = [self.config, PROCESSES, "--resume", "--work-dir", name]
        for machine in self.machines:
            machine.start("dist_train.sh", *self.options, nodes=nodes)

    def wait(self) -> None:
        limit = time.monotonic() + LIMIT
        while any(machine.process.poll() is None for machine in self.machines):
            if time.monotonic() > limit:
                raise RuntimeError(f"not done after {LIMIT:g} s: {self.print_outputs()}")
            time.sleep(0.2)
        if any(machine.process.returncode for machine in self.machines):
            raise RuntimeError(f"failed: {self.print_outputs()}")

    def wait_for(self, machine: Machine) -> None:
        if machine.process.wait(LIMIT):
            raise RuntimeError(f"failed: {self.print_outputs()}")

    def print_outputs(self) -> str:
        return "".join(machine.output.read_text()[-3000:] for machine in self.machines)

    def wait_for_steps(self, name: str, steps: int) -> None:
        losses = self.machines[1].disk / name / "records" / "losses"
        limit = time.monotonic() + LIMIT
        while not losses.exists() or losses.read_text().count("\n") < steps * PROCESSES:
            if time.monotonic() > limit:
                raise RuntimeError(f"no step {steps} after {LIMIT:g} s: {self.print_outputs()}")
            time.sleep(0.05)

    def lose_process(self) -> None:
        self.wait_for_steps("lost_process", 7)
        os.kill(self.machines[1].list_workers()[0], signal.SIGKILL)

    def lose_machine(self) -> None:
        """The second machine fails and comes back with an empty disk."""
        self.wait_for_steps("lost_machine", 7)
        machine = self.machines[1]
        records = machine.disk / "lost_machine" / "records"
        machine.kill()
        kept = shutil.move(records, self.folder / "records")
        shutil.rmtree(machine.disk)
        shutil.copytree(kept, records)
        machine.start("dist_train.sh", *self.options)

    def lose_for_good(self, lost: int) -> list[str]:
        """One of one or two machines is lost for good; how the other goes on.

        Returns:
            What differs from a run that one machine resumes, and what the log does not say.
        """
        name = f"alone_{lost}"
        self.start(name, nodes="1:2")
        self.wait_for_steps(name, 7)
        self.machines[lost].kill()
        rest = self.machines[1 - lost]
        faults = []
        if lost == 0:  # the list of members is gone
            if rest.process.wait(LIMIT) == 0:
                faults.append("ended with 0")
            rest.output.write_text("")
            rest.start("dist_train.sh", *self.options, nodes="1")
        self.wait_for(rest)
        output, run = rest.output.read_text(), rest.disk / name
        if "of steps of 8 images, this run's have 4" not in output:
            faults.append("no warning of the number of images")
        epoch = re.findall(r"resumed epoch: (\d+), iter: \d+", output)[-1]
        resumed = run.with_name(f"{name}_resumed")
        resumed.mkdir()
        shutil.copy(run / f"epoch_{epoch}.pth", resumed)
        rest.start("dist_train.sh", *self.options[:-1], resumed.name, nodes="1")
        self.wait_for(rest)
        found, wanted = read_run(run), read_run(resumed)
        for step, values in wanted["losses"].items():  # both machines had begun some of the steps
            wanted["losses"][step] = sorted(values)
            found["losses"][step] = sorted(found["losses"].get(step, [])[-len(values) :])
        found["losses"] = {step: found["losses"][step] for step in wanted["losses"]}
        return faults + differences(found, wanted)

    def measure(self) -> tuple[dict, dict]:
        """The metrics of both machines together, and those of one process alone."""
        checkpoint = "lost_machine/epoch_6.pth"  # which the new disk has as well
        for machine in self.machines:
            options = [self.config, checkpoint, PROCESSES, "--work-dir", "test"]
            machine.start("dist_test.sh", *options)
        self.wait()
        first = self.machines[0]
        together = json.loads((first.disk / "test" / "metrics.json").read_text())["metrics"]
        paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests", ROOT / "tests" / "fuzz")))
        command = [sys.executable, ROOT / "tools" / "test.py", self.config]
        command += [first.disk / checkpoint, "--work-dir", self.folder / "alone"]
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, capture_output=True, env=environment)
        alone = json.loads((self.folder / "alone" / "metrics.json").read_text())["metrics"]
        return together, alone

    def list_litter(self) -> list[str]:
        """What lies beside the work folders of the machines."""
        runs = {"undisturbed", "lost_process", "lost_machine", "test"}
        runs |= {f"alone_{lost}{end}" for lost in range(2) for end in ("", "_resumed")}
        return sorted({p.name for m in self.machines for p in m.disk.iterdir()} - runs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="kept afterwards; by default a temporary one")
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp())
    folder.mkdir(exist_ok=True)
    network = Network(folder.resolve())
    results: dict[str, list[str]] = {}
    try:
        alone = network.train("undisturbed")
        for name in ("lost_process", "lost_machine"):
            found = network.train(name, getattr(network, name.replace("lost", "lose")))
            results[name] = differences(found, alone)
            print(f"{name}: {len(results[name])} differences", flush=True)
        together, single = network.measure()
        results["metrics"] = differences(together, single)
        for lost in (1, 0):
            results[f"alone_{lost}"] = network.lose_for_good(lost)
            print(f"machine {lost} lost for good: {results[f'alone_{lost}']}", flush=True)
        results["litter"] = network.list_litter()
    finally:
        for machine in network.machines:
            machine.remove()
    steps = len(alone["losses"])
    print(json.dumps({"steps and validations": steps, "differences": results}))
    if args.folder is None:
        shutil.rmtree(folder)
    return int(any(results.values()))


if __name__ == "__main__":
    sys.exit(main())
