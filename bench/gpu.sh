#!/usr/bin/env bash
# Builds MoRI for the GPUs of this machine, runs the tests marked gpu, measures, and prints a short table last.
#
#   bench/gpu.sh [RESULTS_DIR] [PYTEST_ARGUMENT...]
#
# Needs nvcc, a Python with torch for CUDA and the packages of the extras `test` and `bench`; no network. Logs and JSON
# go to RESULTS_DIR (default: build/gpu). MORI_GPU_STEPS (default "test bench") chooses what is done after building: test, soak, bench, sweep, shmem.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=$(mkdir -p "${1:-build/gpu}" && cd "${1:-build/gpu}" && pwd)
shift || true
steps=${MORI_GPU_STEPS:-test bench}
site=$(mktemp -d)
export PYTHONUNBUFFERED=1
# Ranks that share a GPU wait for each other inside kernels: nothing may be loaded lazily meanwhile.
export CUDA_MODULE_LOADING=EAGER CUDA_DEVICE_MAX_CONNECTIONS=32
# NVLink multicast stays off, in everything that is started here.
export NCCL_NVLS_ENABLE=0 TORCH_SYMM_MEM_DISABLE_MULTICAST=1 NVSHMEM_DISABLE_NVLS=1

python3 -m pip install -q --no-build-isolation --no-deps --no-index --target "$site" . -C cmake.define.MORI_HIP=OFF \
  >"$out/build.log" 2>&1 || { tail -40 "$out/build.log"; exit 1; }
export PYTHONPATH=$site:${PYTHONPATH:-}
mkdir -p "$site/run" # away from the checkout, so that the installed package is what runs
python3 -c 'import torch; print(torch.cuda.device_count(), "x", torch.cuda.get_device_name(0), "torch", torch.__version__)'

status=0
if [[ " $steps " == *" test "* ]]; then
  python3 -m pytest -m "gpu and not slow" -q -p no:cacheprovider "${@:-tests}" 2>&1 | tee "$out/tests.log" | grep -v '^SKIPPED' | tail -30 || status=1
fi
if [[ " $steps " == *" soak "* ]]; then # 100,000 replays and the like: minutes
  python3 -m pytest -m "gpu and slow" -q -p no:cacheprovider --timeout 600 "${@:-tests}" 2>&1 | tee "$out/soak.log" | tail -30 || status=1
fi
if [[ " $steps " == *" bench "* ]]; then
  gpus=$(python3 -c 'import torch; print(torch.cuda.device_count())')
  ranks=$((gpus > 1 ? gpus : 2))
  peers=()
  if ((gpus > 1)); then peers=(--peers nccl); fi
  cd "$site/run"
  measure() { # NAME ARGUMENT...
    local name=$1
    shift
    python3 -m mori.cli bench ep --device cuda --ranks "$ranks" --hidden 7168 --topk 8 --experts 256 --routing uniform \
      --graph --json "$out/ep-$name.json" "$@" || status=1
  }
  for tokens in 4096 128; do
    measure "$tokens-bf16" --tokens "$tokens" "${peers[@]}" --trace "$out/trace-$tokens-bf16.json"
    measure "$tokens-fp8" --tokens "$tokens" --dtype fp8 "${peers[@]}" --trace "$out/trace-$tokens-fp8.json"
    measure "$tokens-narrowed" --tokens "$tokens" --quantize fp8
    measure "$tokens-grouped" --tokens "$tokens" --dtype fp8 --layout grouped --align 128 --trace "$out/trace-$tokens-grouped.json"
    measure "$tokens-expert-narrowed" --tokens "$tokens" --quantize fp8 --layout expert
  done
  for memory in gpu host-gpu gpu-host; do
    python3 -m mori.cli bench io --memory "$memory" --block-size 4K,64K,1M --json "$out/io-$memory.json" || status=1
  done
  if [[ " $steps " == *" sweep "* ]]; then # tokens, and blocks: docs/ep_tuning.md
    for tokens in 1 8 32 512 1024 2048; do measure "$tokens-fp8" --tokens "$tokens" --dtype fp8; done
    for blocks in 4 8 12 16 24 32 48 64 96; do measure "4096-fp8-$blocks-blocks" --tokens 4096 --dtype fp8 --blocks "$blocks"; done
  fi
fi
if [[ " $steps " == *" shmem "* ]]; then # operations inside kernels, on two GPUs or on one that is shared
  gpus=$(python3 -c 'import torch; print(torch.cuda.device_count())')
  peers=()
  if ((gpus > 1)); then peers=(--peers nvshmem); fi
  cd "$site/run"
  python3 -m mori.cli bench shmem --device cuda --ranks 2 --iters 12 --timeout 200 --json "$out/shmem.json" \
    --plot "$out/shmem.png" "${peers[@]}" 2>&1 | tee "$out/shmem.log" | tail -150 || status=1
fi
rm -rf "$site"
exit $status
