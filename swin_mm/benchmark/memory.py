"""Peak memory of a step on the CPU, as the operating system counts it.

Only Linux reports and resets a process's peak; elsewhere there is no figure.
"""

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # man 5 proc_pid_clear_refs
KIB = 1024


def measure_growth(run: Callable[[], object]) -> int | None:
    """Bytes by which this process grows at most while `run` runs; `None` if not available.

    Memory freed while `run` runs may still count where glibc keeps it: blocks of less than 32 MiB,
    and larger ones that fit into a gap that earlier work has left in its heap. A young process has
    no such gaps. Pages of files that are read meanwhile, such as code, are left out.
    """
    if not sys.platform.startswith("linux"):
        return None
    try:
        # Freed memory that the allocator keeps would be reused first, uncounted.
        ctypes.CDLL(None).malloc_trim(0)
        before, files = _read("VmRSS"), _read("RssFile")
        CLEAR_REFS.write_text(RESET_PEAK)
    except (OSError, AttributeError, KeyError):  # another C library, or a kernel without it
        return None
    run()
    return _read("VmHWM") - before - max(0, _read("RssFile") - files)


def _read(name: str) -> int:
    fields = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if ":" in line)
    return int(fields[name].split()[0]) * KIB
