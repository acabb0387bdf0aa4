#!/usr/bin/env bash
# What is to be run on a GPU that is lent for minutes:
#   bash benchmarks/gpu.sh check     values, gradients and repeatability of the kernels; 3 minutes
#   bash benchmarks/gpu.sh measure   the rows of the table of goals; 6 minutes
# Options: --seconds N, --out DIR (benchmarks/gpu), --rehearse (tiny sizes on a CPU).
# A second start goes on with what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${PYTHON:-python3}" benchmarks/gpu.py "$@"
