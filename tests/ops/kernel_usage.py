"""What compiled kernels take of a GPU; for the scripts that compile them without one."""

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import compile

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


def compile_for(source: Any, capability: int, **options: Any) -> Any:
    """Compiles for a capability such as 90."""
    return compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def describe_usage(compiled: Any) -> str:
    """Registers and stack bytes (what found no register) of a thread, shared bytes of a program."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [CUOBJDUMP, "--dump-resource-usage", file.name]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", text).groups()
    return f"{registers} {stack} {compiled.metadata.shared}"
