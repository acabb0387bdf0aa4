#!/usr/bin/env bash
# Tests as a Slurm job.
#   GPUS=8 bash tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [options of test.py]
# Settings are those of slurm_train.sh.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/slurm_run.sh"

if [[ $# -lt 4 ]]; then
  sed -n '2,4s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
fi
partition=$1 job=$2
shift 2
slurm_run "$partition" "$job" test.py "$@"
