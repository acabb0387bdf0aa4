#!/usr/bin/env bash
# Makes the environment, checks the style, runs the tests. Arguments go to pytest:
# `bash tools/run_tests.sh -k fpn`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash tools/make_env.sh test
source .venv/bin/activate
ruff check .
ruff format --check .
# One thread each: two workers with two threads on two cores wait for one another.
export OMP_NUM_THREADS=1
exec python -m pytest --numprocesses 2 --dist loadgroup "$@"
