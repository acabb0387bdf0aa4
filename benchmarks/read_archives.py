"""Reads images of COCO's size from files and from one tar archive, and counts what that takes.

    python benchmarks/read_archives.py [--images 1000] [--folder DIR] [--out FILE.json]

The images, noise of 640 x 480 pixels and some 145 kB as JPEG, are made in DIR, by default a
temporary folder, beside `images.tar` with the same. DIR should be on the disk in question. Each
row is a new process that reads all of them in one random order, through mmengine's `fileio.get` as
`LoadImageFromFile` does. Where a row is cold, the pages of the files were dropped from the page
cache before; names and attributes stay known to the kernel. `from disk` shows whether that worked.
"""

import argparse
import json
import os
import random
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable, Sequence
from multiprocessing import get_context
from pathlib import Path

import cv2
import fsspec  # noqa: F401, so that reading its modules is not counted
import numpy as np
from mmengine import fileio

from swin_mm.datasets import tar_files  # noqa: F401, which registers tar://

HEIGHT, WIDTH = 480, 640
NOISE, QUALITY = 48, 90  # grey levels; of JPEG
# Where images are read from, and how; the first read of an archive writes its index.
ROWS = (("files", "cold"), ("files", "warm"), ("tar", "index"), ("tar", "cold"), ("tar", "warm"))


def make_images(folder: Path, count: int) -> list[str]:
    """Draws images, unless they are there, and packs them; returns their names."""
    names = [f"{number:012d}.jpg" for number in range(count)]
    images, draw = folder / "images", np.random.default_rng(0)
    images.mkdir(parents=True, exist_ok=True)
    for name in names:
        if not (images / name).exists():
            coarse = draw.integers(0, 256, (HEIGHT // 16, WIDTH // 16, 3), np.uint8)
            smooth = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
            noise = draw.integers(0, NOISE, smooth.shape, np.uint8)
            pixels = cv2.add(smooth, noise)
            cv2.imwrite(str(images / name), pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    archive = folder / "images.tar"
    if not archive.exists():
        with tarfile.open(archive, "w") as tar:
            for name in names:
                tar.add(images / name, name)
    archive.with_name("images.tar.index").unlink(missing_ok=True)
    return names


def drop_pages(paths: Iterable[Path]) -> None:
    """Drops the pages of files from the page cache, which needs no rights."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def read_counters() -> dict[str, int]:
    """What the kernel counts for this process: calls to read, bytes of them, bytes from a disk."""
    lines = Path("/proc/self/io").read_text().splitlines()
    found = {name: int(value) for name, value in (line.split(": ") for line in lines)}
    return {"reads": found["syscr"], "bytes": found["rchar"], "from disk": found["read_bytes"]}


def read_all(paths: Sequence[str]) -> dict[str, float]:
    """Reads files in this process and counts."""
    opens = stats = size = 0

    def count(event: str, _: tuple) -> None:
        nonlocal opens
        opens += event == "open"

    def counted_stat(*args, stat=os.stat, **kwargs):
        nonlocal stats
        stats += 1
        return stat(*args, **kwargs)

    before = read_counters()
    sys.addaudithook(count)
    os.stat = counted_stat
    cpu, seconds = time.process_time(), time.perf_counter()
    for path in paths:
        size += len(fileio.get(path))
    cpu, seconds = time.process_time() - cpu, time.perf_counter() - seconds
    row = {"images": len(paths), "content": size, "opens": opens, "stats": stats}
    after = read_counters()
    row |= {name: value - before[name] for name, value in after.items()}
    return {**row, "cpu_seconds": round(cpu, 4), "seconds": round(seconds, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=1000, help="(%(default)s)")
    parser.add_argument("--folder", type=Path, help="kept afterwards; by default a temporary one")
    parser.add_argument("--out", type=Path, help="write the rows here as JSON too")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.folder or Path(temporary)).resolve()
        names = make_images(folder, args.images)
        order = random.Random(0).sample(names, len(names))
        roots = {"files": folder / "images", "tar": f"tar://{folder}/images.tar"}
        found = {}
        for source, state in ROWS:
            if state == "cold":
                drop_pages([*(folder / "images").iterdir(), folder / "images.tar"])
            paths = [f"{roots[source]}/{name}" for name in order]
            row = f"{source}, {state}"
            with get_context("spawn").Pool(1) as pool:
                found[row] = pool.apply(read_all, [paths[:1] if state == "index" else paths])
            print(f"{row}: {json.dumps(found[row])}", flush=True)
    if args.out:
        args.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
