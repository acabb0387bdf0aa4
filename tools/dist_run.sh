# Sourced by dist_train.sh and dist_test.sh.

# dist_run PROCESSES SCRIPT ARGUMENTS...: starts a script of this folder with torchrun, on as many
# machines as NNODES says; PORT is any free one unless given.
dist_run() {
  local processes=$1 script=$2
  shift 2
  if [[ ! $processes =~ ^[1-9][0-9]*$ ]]; then
    echo "the number of GPUs (on CPUs: of processes) must be positive, got '$processes'" >&2
    exit 2
  fi
  local rendezvous=(--standalone)
  if [[ ${NNODES:-1} -gt 1 || -n ${PORT:-} ]]; then
    rendezvous=(
      --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}"
      --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}"
    )
  fi
  local folder
  folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
  PYTHONPATH="$folder/..${PYTHONPATH:+:$PYTHONPATH}" \
    exec python -m torch.distributed.run "${rendezvous[@]}" --nproc_per_node="$processes" \
    "$folder/$script" "$@" --launcher pytorch
}
