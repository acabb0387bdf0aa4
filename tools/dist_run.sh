# Sourced by dist_train.sh and dist_test.sh.

# dist_run PROCESSES SCRIPT ARGUMENTS...: starts a script of this folder with torchrun. NNODES,
# NODE_RANK, MASTER_ADDR and PORT are those of mmdet's scripts; NNODES may be a range, as 1:4.
# MAX_RESTARTS (0) and TORCHRUN_ARGS, split at blanks, go to torchrun.
dist_run() {
  local processes=$1 script=$2
  shift 2
  if [[ ! $processes =~ ^[1-9][0-9]*$ ]]; then
    echo "the number of GPUs (on CPUs: of processes) must be positive, got '$processes'" >&2
    exit 2
  fi
  local rendezvous=(--standalone)
  if [[ ${NNODES:-1} != 1 ]]; then
    : "${MASTER_ADDR:?must be the address of the machine with NODE_RANK=0}"
    rendezvous=(
      --nnodes="$NNODES" --rdzv-backend=c10d --rdzv-endpoint="$MASTER_ADDR:${PORT:-29500}"
    )
    # torchrun asks the name service for addresses otherwise, which may not know these machines.
    if [[ ${NODE_RANK:-} == 0 ]]; then
      rendezvous+=(--rdzv-conf=is_host=1 --local-addr="$MASTER_ADDR")
    elif [[ -n ${NODE_RANK:-} ]]; then
      rendezvous+=(--rdzv-conf=is_host=0)
    fi
  fi
  # The store of PyTorch 2.14 keeps the addresses of processes that are gone: started again, others
  # may find these before they find the new ones.
  export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
  local folder
  folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
  PYTHONPATH="$folder/..${PYTHONPATH:+:$PYTHONPATH}" \
    exec python -m torch.distributed.run "${rendezvous[@]}" --nproc-per-node="$processes" \
    --max-restarts="${MAX_RESTARTS:-0}" ${TORCHRUN_ARGS:-} \
    "$folder/$script" "$@" --launcher pytorch
}
