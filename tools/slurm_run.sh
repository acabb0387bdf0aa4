# Sourced by slurm_train.sh and slurm_test.sh.

# slurm_run PARTITION JOB_NAME SCRIPT ARGUMENTS...: starts a script of this folder with srun, or
# with REQUEUE=1 submits slurm_job.sh, which does so.
slurm_run() {
  local partition=$1 job=$2 script=$3
  shift 3
  local gpus=${GPUS:-8}
  # A job of fewer GPUs than a machine has asks for no more than it uses.
  local per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
  local folder
  folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
  export PYTHONPATH="$folder/..${PYTHONPATH:+:$PYTHONPATH}"
  local asked=(
    --partition="$partition" --job-name="$job" --gres="gpu:$per_node"
    --ntasks="$gpus" --ntasks-per-node="$per_node" --cpus-per-task="${CPUS_PER_TASK:-5}"
  )
  local command=(python -u "$folder/$script" "$@" --launcher slurm)
  # SRUN_ARGS is split at blanks on purpose.
  if [[ -z ${REQUEUE:-} ]]; then
    exec srun "${asked[@]}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} "${command[@]}"
  fi
  if [[ " $* " != *" --resume"[\ =]* ]]; then
    echo "REQUEUE=1 starts the run again: give --resume, so that it goes on" >&2
    exit 2
  fi
  exec sbatch "${asked[@]}" ${SRUN_ARGS:-} "$folder/slurm_job.sh" "${command[@]}"
}
