#!/usr/bin/env bash
# Everything to be run once on a GPU: tests, accesses to memory, times. Needs an environment with
# the package and its tests' extras; takes about half an hour. Results go to benchmarks/gpu/.
set -uo pipefail
cd "$(dirname "$0")/.."
OUT=benchmarks/gpu
PYTHON=${PYTHON:-python}
mkdir -p "$OUT"
FAILED=()

run() {  # NAME COMMAND...: goes on after a failure, and tells of it at the end
  local name=$1
  shift
  echo "== $name: $*"
  "$@" > >(tee "$OUT/$name.log") 2>&1 || FAILED+=("$name")
}

# Backends are named: `auto` uses what passes a self-test on the GPU at hand.
BACKENDS="sdpa triton"

measure() {  # NAME OPTIONS...: with the Triton kernels and without, beside all peers
  local name=$1
  shift
  for backend in $BACKENDS; do
    run "${name}_$backend" "$PYTHON" tools/benchmark.py --attn-backend "$backend" --peers all \
      --out "$OUT/${name}_$backend" "$@"
  done
}

KERNELS="tests/ops/test_triton_window_attention.py tests/ops/test_triton_rows.py tests/heads/ops/test_nms_of_groups.py tests/models/layers/test_fused.py"

# Values, gradients, repeatability.
run doctor "$PYTHON" -m swin_mm.cli.main doctor
run tests "$PYTHON" -m pytest -m gpu -q $KERNELS

# No access outside of a tensor. Without the allocator's cache each tensor has bounds of its own.
run sanitizer env PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool memcheck \
  --error-exitcode 1 "$PYTHON" -m pytest -m gpu -q -k "values_and_gradients or several" $KERNELS

# Swin-T, 800x1344, bfloat16.
BF16="--size 800x1344 --dtype bf16"
measure train_b2_changing $BF16 --mode train --batch 2 --changing-sizes --run eager compile
measure train_b8 $BF16 --mode train --batch 8 --run eager compile
measure inference_b2 $BF16 --mode inference --batch 2 --run eager compile graphs
measure inference_b8 $BF16 --mode inference --batch 8 --run eager compile graphs
# Larger models.
measure swin_l_train --arch large --window 12 --size 1280x1280 --dtype bf16 --mode train
measure v2_b_train --version 2 --arch base --window 16 --size 1024x1024 --dtype bf16 --mode train \
  --run eager compile
# Whole training steps, beside the frameworks' own, and where their time goes.
for work in mask_rcnn_swin_t:800x1344:2 mask_rcnn_swin_t:800x1344:8 \
  cascade_mask_rcnn_swin_t:800x1344:8 upernet_swin_t:512x512:16; do
  IFS=: read -r config size batch <<<"$work"
  step="--config $config --size $size --batch $batch"
  for backend in $BACKENDS; do
    run "${config}_b${batch}_$backend" "$PYTHON" tools/benchmark.py $step --mode train --dtype fp16 \
      --cfg-options "model.backbone.attn_backend=$backend" --peers all \
      --out "$OUT/${config}_b${batch}_$backend"
  done
  run "${config}_b${batch}_profile" "$PYTHON" tools/benchmark.py $step --profile \
    --cfg-options model.backbone.attn_backend=triton --out "$OUT/${config}_b${batch}_profile"
done
# The neck, and how cost grows.
run neck "$PYTHON" tools/benchmark.py --part neck $BF16 --batch 8 --mode train --peers all \
  --out "$OUT/neck"
for sweep in side batch window depth; do
  for backend in $BACKENDS; do
    run "sweep_${sweep}_$backend" "$PYTHON" tools/benchmark.py --sweep "$sweep" --mode train \
      --dtype bf16 --attn-backend "$backend" --out "$OUT/sweep_${sweep}_$backend"
  done
done

if ((${#FAILED[@]})); then
  echo "failed: ${FAILED[*]}; see $OUT/NAME.log"
  exit 1
fi
echo "all done: $OUT"
