#!/usr/bin/env bash
# Trains with Slurm, in the foreground:
#   GPUS=8 GPUS_PER_NODE=8 bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG [options of train.py]
# or as a batch job, which is queued again at its time limit and when it is preempted, and resumes:
#   REQUEUE=1 SRUN_ARGS=--time=4:00:00 bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG --resume
# As in mmdet, a fourth argument that is no option is the work folder. CPUS_PER_TASK (5) are the
# processors of each GPU's process, SRUN_ARGS further options of srun, or of sbatch with REQUEUE=1.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/slurm_run.sh"

if [[ $# -lt 3 ]]; then
  sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
fi
partition=$1 job=$2 config=$3
shift 3
if [[ $# -gt 0 && $1 != -* ]]; then
  work_dir=(--work-dir "$1")
  shift
fi
slurm_run "$partition" "$job" train.py "$config" ${work_dir[@]+"${work_dir[@]}"} "$@"
