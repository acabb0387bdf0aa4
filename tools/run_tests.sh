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
# Types are checked while the tests run: mypy alone would leave a core idle for a minute.
log=$(mktemp)
mypy > "$log" 2>&1 &
types=$!
trap 'kill "$types" 2>/dev/null || true; rm -f "$log"' EXIT
# One thread each: two workers with two threads on two cores wait for one another. A file's tests
# run in one worker, which makes its fixtures once; `tests/conftest.py` puts files in order.
export OMP_NUM_THREADS=1
status=0
python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder \
  ${tier[@]+"${tier[@]}"} ${arguments[@]+"${arguments[@]}"} || status=$?
wait "$types" || status=1
cat "$log"
exit "$status"
