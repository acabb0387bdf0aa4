#!/usr/bin/env bash
# Trains with several processes, one for each GPU, or on CPUs where there is none.
#   bash tools/dist_train.sh CONFIG GPUS [options of train.py]
# On several machines, on each of them with its own NODE_RANK:
#   NNODES=2 NODE_RANK=0 MASTER_ADDR=10.0.0.1 PORT=29500 bash tools/dist_train.sh CONFIG GPUS
# MAX_RESTARTS=3, or a range of machines such as NNODES=1:4, needs --resume.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/dist_run.sh"

if [[ $# -lt 2 ]]; then
  sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
fi
config=$1 gpus=$2
shift 2
if [[ ${MAX_RESTARTS:-0} != 0 || ${NNODES:-1} == *:* ]] && [[ " $* " != *" --resume"[\ =]* ]]; then
  echo "MAX_RESTARTS and a range in NNODES restart the run: give --resume, so that it goes on" >&2
  exit 2
fi
dist_run "$gpus" train.py "$config" "$@"
