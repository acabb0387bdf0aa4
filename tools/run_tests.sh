#!/usr/bin/env bash
# Makes the environment, checks style and types, runs the tests of the first tier, and with `--all`
# the slow ones too. Other arguments go to pytest: `bash tools/run_tests.sh -k fpn`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tier=(-m "not slow")
arguments=()
for argument in "$@"; do
  if [[ $argument == --all ]]; then
    tier=()
  else
    arguments+=("$argument")
  fi
done
bash tools/make_env.sh test
source .venv/bin/activate
ruff check .
ruff format --check .
mypy
# One thread each: two workers with two threads on two cores wait for one another. A file's tests
# run in one worker, which makes its fixtures once; `tests/conftest.py` puts files in order.
export OMP_NUM_THREADS=1
exec python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder \
  ${tier[@]+"${tier[@]}"} ${arguments[@]+"${arguments[@]}"}
