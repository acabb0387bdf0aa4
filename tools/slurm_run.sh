# Sourced by slurm_train.sh and slurm_test.sh.

# slurm_run PARTITION JOB_NAME SCRIPT ARGUMENTS...: starts a script of this folder with srun.
slurm_run() {
  local partition=$1 job=$2 script=$3
  shift 3
  local gpus=${GPUS:-8}
  # A job of fewer GPUs than a machine has asks for no more than it uses.
  local per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
  local folder
  folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
  # SRUN_ARGS is split at blanks on purpose.
  PYTHONPATH="$folder/..${PYTHONPATH:+:$PYTHONPATH}" \
    exec srun --partition="$partition" --job-name="$job" --gres="gpu:$per_node" \
    --ntasks="$gpus" --ntasks-per-node="$per_node" --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    python -u "$folder/$script" "$@" --launcher slurm
}
