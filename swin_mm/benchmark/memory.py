"""Most memory that a step on the CPU takes, as the operating system counts it.

Linux alone tells and resets a process's peak; elsewhere there is no figure.
"""

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path

STATUS = Path("/proc/self/status")
RESETS = Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # man 5 proc_pid_clear_refs
KIB = 1024


def measure_growth(run: Callable[[], object]) -> int | None:
    """Bytes by which this process grows at most while `run` runs; `None` where nobody counts.

    Blocks of less than 32 MiB come from glibc's heap, of which what is freed may count on. Pages
    of files that are read meanwhile, as of code that the system had taken, are left out.
    """
    if not sys.platform.startswith("linux"):
        return None
    try:
        # What was freed but kept by the allocator would otherwise be used first, uncounted.
        ctypes.CDLL(None).malloc_trim(0)
        before, files = _read("VmRSS"), _read("RssFile")
        RESETS.write_text(RESET_PEAK)
    except (OSError, AttributeError, KeyError):  # another C library, or a kernel without it
        return None
    run()
    return _read("VmHWM") - before - max(0, _read("RssFile") - files)


def _read(name: str) -> int:
    fields = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if ":" in line)
    return int(fields[name].split()[0]) * KIB
