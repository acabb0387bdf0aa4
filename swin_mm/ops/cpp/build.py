"""Compiles C++ sources of this folder on first use, for the machine at hand, and keeps the result.

No part of the package needs it: without a compiler, PyTorch's operators serve. Sources include
nothing of PyTorch and Python, so that a compiler is all that is wanted, and a file takes seconds.
"""

import ctypes
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

logger = logging.getLogger("swin_mm")

SOURCES = Path(__file__).parent
FLAGS = "-O3 -march=native -std=gnu++17 -fno-math-errno -fno-trapping-math -Wno-psabi -shared -fPIC"
TIMEOUT = 120  # seconds
CACHE_VARIABLE = "SWIN_MM_CACHE"


class BuildError(RuntimeError):
    """There is no library, and why."""


def find_compiler() -> str | None:
    """Path of the C++ compiler, as `CXX` names it or the first that is found; `None` for none."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "c++"]
    return next(filter(None, map(shutil.which, names)), None)


def cache_folder() -> Path:
    """Where libraries are kept: `$SWIN_MM_CACHE`, or `swin_mm` in the user's cache folder."""
    if os.environ.get(CACHE_VARIABLE):
        return Path(os.environ[CACHE_VARIABLE])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "swin_mm"


def library_path(name: str) -> Path:
    """Where the library of `<name>.cpp` is, or is to be.

    Raises:
        BuildError: When there is no compiler.
    """
    compiler = find_compiler()
    if compiler is None:
        raise BuildError("there is no C++ compiler (g++ or clang++, or what CXX names)")
    source = SOURCES / f"{name}.cpp"
    return cache_folder() / f"{name}-{_fingerprint(source, compiler)}.so"


@lru_cache
def load_library(name: str) -> ctypes.CDLL:
    """Loads `<name>.cpp` of this folder as a library, compiled before where that was done.

    Raises:
        BuildError: When there is no compiler, it fails, or its result cannot be kept or loaded.
    """
    path = library_path(name)
    try:
        if not path.exists():
            _compile(find_compiler(), SOURCES / f"{name}.cpp", path)
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise BuildError(f"{path} cannot be written or loaded: {error}") from error


@lru_cache
def build_refusal(name: str) -> str | None:
    """Why there is no library of this name; `None` where there is one."""
    try:
        load_library(name)
    except BuildError as error:
        return str(error)
    return None


def pointer(tensor: Tensor | None) -> int | None:
    """Address of a tensor's first element; null for none."""
    return None if tensor is None else tensor.data_ptr()


def _fingerprint(source: Path, compiler: str) -> str:
    """Changes with the sources, the flags, the compiler and the processor, whose code is native."""
    stamp = Path(compiler).stat()
    texts = [path.read_text() for path in (source, *sorted(SOURCES.glob("*.h")))]
    parts = [*texts, FLAGS, os.path.realpath(compiler), stamp.st_size, stamp.st_mtime]
    return hashlib.sha256("\n".join(map(str, [*parts, _processor()])).encode()).hexdigest()[:16]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return torch.backends.cpu.get_cpu_capability()
    wanted = ("flags", "Features", "model name")  # x86 and Arm have names of their own
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))


def _compile(compiler: str, source: Path, path: Path) -> None:
    logger.info("Compiling %s for this CPU, once, into %s", source.name, path.parent)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        result = Path(folder) / path.name
        command = [compiler, *FLAGS.split(), str(source), "-o", str(result)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
        except subprocess.TimeoutExpired as error:
            raise BuildError(f"{compiler} took more than {TIMEOUT} s") from error
        if done.returncode:
            raise BuildError(f"{compiler} failed: {done.stderr.strip()[-500:]}")
        os.replace(result, path)  # at once: others may be at it too


@lru_cache
def run_parallel() -> ctypes.c_void_p:
    """OpenMP's entry in the library that PyTorch itself uses; null where it is another kind.

    Threads of a pool of our own would wait for PyTorch's, which spin for a while after their work.
    """
    try:
        torch_cpu = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        return ctypes.cast(torch_cpu.GOMP_parallel, ctypes.c_void_p)
    except (OSError, AttributeError):
        return ctypes.c_void_p(None)
