"""Changes checkpoints at random, and looks at what becomes of them.

    python tests/fuzz/fuzz_checkpoints.py [--count 5000] [--seed 0] [--first 0] [--verbose]

Each must load equal to the original, or to what another reader finds in it, or end in one line of
`CheckpointError`. Prints a line of JSON for each that does not, and the counts; the status is 1
where there was one. Checkpoints are read in processes of their own, of limited time and memory.
"""

import argparse
import json
import logging
import os
import random
import resource
import select
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from checkpoint_kinds import KINDS, TINY
from checkpoint_mutations import mutate
from checkpoint_oracle import is_same, read_otherwise, use

from swin_mm import SwinTransformer
from swin_mm.checkpoint import CheckpointError, load_checkpoint_file
from swin_mm.checkpoint.errors import MAX_MESSAGE
from swin_mm.checkpoint.find import find_backbone, with_state_dict
from swin_mm.checkpoint.finite import list_non_finite
from swin_mm.cli.inspect_checkpoint import collect_facts, describe_facts
from swin_mm.compat.checkpoint_loading import check_run_state

SECONDS = 60.0  # that one file may take
EXTRA_BYTES = 4 * 2**30  # of address space, beside what importing takes
LOADED = ("equal", "as another reader", "no other reader")


def is_one_line(error: Exception) -> bool:
    text = str(error)
    return bool(text) and text.isprintable() and len(text) <= MAX_MESSAGE + 4


def examine(path: Path, kind: str, original: object, is_checked: bool) -> str:
    """Loads a changed checkpoint; one of `LOADED`, `refused`, or what is wrong."""
    try:
        content = load_checkpoint_file(path)
    except CheckpointError as error:
        return "refused" if is_one_line(error) else f"no line: {error!r}"
    use(content)
    walk_through_doors(path, content)
    if is_same(content, original):
        return "equal"
    if is_checked:
        return "differs in spite of checksums"
    try:
        other = read_otherwise(path, kind)
    except Exception:  # it knows fewer types, or reads what is right differently
        return "no other reader"
    return "as another reader" if is_same(content, other) else "differs from another reader"


def walk_through_doors(path: Path, content: dict) -> None:
    """Does what commands do with a checkpoint; they may refuse it."""
    steps = (
        lambda: describe_facts(collect_facts(str(path), content, find_backbone(content))),
        lambda: SwinTransformer(**TINY).load_state_dict(dict(content), strict=False),
        lambda: with_state_dict(content, str(path)),
        lambda: check_run_state(content, str(path)),
        lambda: list_non_finite(content),
    )
    for step in steps:
        try:
            step()
        except CheckpointError as error:
            if not is_one_line(error):
                raise


def serve(numbers: list[int], seed: int, folder: Path, pipe: int) -> None:
    """Examines the mutations of these numbers; writes lines before and after each."""
    import torch

    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    memory = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (memory + EXTRA_BYTES,) * 2)
    originals = {}
    for kind, write in KINDS.items():
        (folder / kind).mkdir(parents=True, exist_ok=True)
        originals[kind] = (path := write(folder / kind)), load_checkpoint_file(path)
    for number in numbers:
        kind = list(KINDS)[number % len(KINDS)]
        draw = random.Random(f"{seed}-{number}")
        path, original = originals[kind]
        place = folder / str(number)
        shutil.copytree(path.parent, place)
        is_checked = mutate(kind, place / path.name, draw)
        os.write(pipe, json.dumps({"number": number, "kind": kind}).encode() + b"\n")
        reset_peak()
        try:
            outcome = examine(place / path.name, kind, original, is_checked)
        except BaseException as error:
            outcome = f"traceback: {type(error).__name__}: {error}"[:1000]
        line = {"number": number, "kind": kind, "outcome": outcome, "MiB": peak()}
        os.write(pipe, json.dumps(line).encode() + b"\n")
        shutil.rmtree(place)


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """Most memory that was used since `reset_peak`, beside what is used now, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    facts = {name: value for name, _, value in (line.partition(":") for line in lines)}
    return (int(facts["VmHWM"].split()[0]) - int(facts["VmRSS"].split()[0])) // 1024


def fuzz(numbers: list[int], seed: int, folder: Path) -> Iterator[dict]:
    """Examines mutations in child processes, another one where one ends or hangs."""
    while numbers:
        begun, done = None, 0
        for line in _run_child(numbers, seed, folder):
            if "outcome" in line:
                done += 1
                begun = None
                yield line
            else:
                begun = line
        if begun is not None:
            done += 1
            yield begun | {"outcome": line_of_end(folder), "MiB": 0}
        elif done < len(numbers):
            raise RuntimeError(f"a process ended between two files: {line_of_end(folder)}")
        numbers = numbers[done:]


def line_of_end(folder: Path) -> str:
    return (folder / "end").read_text()


def _run_child(numbers: list[int], seed: int, folder: Path) -> Iterator[dict]:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            serve(numbers, seed, folder, writing)
        finally:
            os._exit(0)
    os.close(writing)
    rest, end = b"", ""
    while select.select([reading], [], [], SECONDS)[0]:
        if not (piece := os.read(reading, 65536)):
            break
        *lines, rest = (rest + piece).split(b"\n")
        yield from map(json.loads, lines)
    else:
        os.kill(child, 9)
        end = f"hangs: more than {SECONDS:.0f} s"
    os.close(reading)
    status = os.waitpid(child, 0)[1]
    (folder / "end").write_text(end or f"signal {os.WTERMSIG(status)}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Change checkpoints at random and load them.")
    parser.add_argument("--count", type=int, default=5000, help="how many (%(default)s)")
    parser.add_argument("--first", type=int, default=0, help="number to begin at (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the choices (%(default)s)")
    parser.add_argument("--verbose", action="store_true", help="a line for each")
    args = parser.parse_args()
    counts: Counter = Counter()
    by_kind: dict[str, Counter] = {kind: Counter() for kind in KINDS}
    most = failures = 0
    with tempfile.TemporaryDirectory() as folder:
        numbers = list(range(args.first, args.first + args.count))
        for line in fuzz(numbers, args.seed, Path(folder)):
            is_right = line["outcome"] in (*LOADED, "refused")
            name = line["outcome"] if is_right else "FAILED"
            counts[name] += 1
            by_kind[line["kind"]][name] += 1
            failures += not is_right
            most = max(most, line["MiB"])
            if args.verbose or not is_right:
                print(json.dumps(line), flush=True)
    for kind, found in by_kind.items():
        print(json.dumps({"kind": kind, **found}))
    print(json.dumps({**counts, "most memory, MiB": most}))
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
