"""Compiles the Triton kernels for GPUs that need not be there, and writes what they take.

python benchmarks/kernels.py    # writes benchmarks/kernels.md; takes a minute or two
"""

import os
import subprocess
import sys
from pathlib import Path

import torch
import triton

FOLDER = Path(__file__).parent
SCRIPTS = FOLDER.parent / "tests" / "ops"
CAPABILITIES = ("80", "90", "100")
RUNS = (
    ("compile_attention.py", "bfloat16", "32"),
    ("compile_rows.py", "96,384,1536"),
    ("compile_nms.py",),
)
HEAD = f"""# What the Triton kernels take of a GPU

Counted by NVIDIA's assembler for three compute capabilities; no GPU has run them. Each cell holds
registers of a thread / bytes of its stack (what found no register) / bytes of shared memory of a
program. Attention: bfloat16, heads of 32 channels, windows of 7x7 (one tile) and 12x12. Row
kernels: sums in float32, branches in bfloat16; the number is the width.

Made by `python benchmarks/kernels.py`, PyTorch {torch.__version__}, Triton {triton.__version__}.

| Kernel | {" | ".join(f"sm_{capability}" for capability in CAPABILITIES)} |
|---|{"---|" * len(CAPABILITIES)}
"""


def main() -> None:
    cells: dict[str, list[str]] = {}
    for script, *arguments in RUNS:
        command = [sys.executable, str(SCRIPTS / script), *arguments, *CAPABILITIES]
        environment = os.environ | {"TRITON_INTERPRET": "0"}
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
        for line in done.stdout.decode().splitlines():
            name, _, registers, stack, shared, *_ = line.split()
            cells.setdefault(name.replace(",", " "), []).append(f"{registers} / {stack} / {shared}")
    rows = [f"| {name} | {' | '.join(found)} |\n" for name, found in cells.items()]
    (FOLDER / "kernels.md").write_text(HEAD + "".join(rows))


if __name__ == "__main__":
    main()
