#!/usr/bin/env bash
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.out
#SBATCH --signal=B:USR1@120
# Runs a command on all tasks of a batch job; `REQUEUE=1 bash tools/slurm_train.sh` submits it.
# Slurm signals this script 120 seconds before the time limit. It passes the signal on, which has a
# training save and stop, and queues the job again. When Slurm preempts the job, or a machine fails,
# it queues the job again by itself. An error or `scancel` ends it.
set -uo pipefail

is_ending=""
trap 'is_ending=1; kill -USR1 "$!" 2>/dev/null' USR1

# Several jobs may run on one machine.
export MASTER_PORT=${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 20000))}
srun --kill-on-bad-exit=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-5}" "$@" &
srun=$!
wait "$srun"
status=$?
if [[ -n $is_ending ]]; then # the signal ended `wait`, not srun
  wait "$srun"
  status=$?
fi
if [[ -n $is_ending && $status -ne 0 ]]; then
  echo "queueing job $SLURM_JOB_ID again: its time was over"
  exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
