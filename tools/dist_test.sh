#!/usr/bin/env bash
# Tests with several processes, one for each GPU, or on CPUs where there is none.
#   bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of test.py]
# On several machines: as dist_train.sh.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/dist_run.sh"

if [[ $# -lt 3 ]]; then
  sed -n '2,4s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
fi
config=$1 checkpoint=$2 gpus=$3
shift 3
dist_run "$gpus" test.py "$config" "$checkpoint" "$@"
