#!/bin/sh
# The GPU list, part by part, each within ten minutes: run.sh build | ops | sanitize | kernels | all. Runs in a checkout
# or in the unpacked bundle; prints a short table last and writes JSON to build/gpu/. Needs a GPU, and nvcc to build.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
export PATH="$root/bin:/usr/local/cuda/bin:$PATH" HOME="${HOME:-$root}"
out=build/gpu/results
mkdir -p "$out"

build() {
  # Without nvcc the library that the bundle carries serves, if it is there.
  if command -v nvcc >/dev/null; then node scripts/build.ts cuda native
  else ls build/libpagestream_cuda.so; fi
}

ops() {
  export BACKEND=cuda
  for suite in rows linear logprobs sample checks attention cuda/bf16; do
    if node --test --test-reporter=tap "test/kernels/$suite.test.ts" >"$out/ops.$(basename $suite).tap" 2>&1
    then echo "ok    $suite"
    else echo "FAIL  $suite: $out/ops.$(basename $suite).tap"; failed=1; fi
  done
  return "${failed:-0}"
}

sanitize() {
  if ! command -v compute-sanitizer >/dev/null; then echo "compute-sanitizer is not installed"; return 0; fi
  for tool in memcheck racecheck synccheck; do
    BACKEND=cuda compute-sanitizer --tool "$tool" --error-exitcode 9 --target-processes all \
      node test/kernels/cuda/bf16.test.ts >"$out/sanitize.$tool.log" 2>&1 && echo "ok    $tool" || echo "FAIL  $tool"
  done
}

kernels() { node scripts/gpu/kernels.ts --json "$out/kernels.json"; }

ls /dev/nvidia[0-9]* >/dev/null 2>&1 || { echo "there is no NVIDIA GPU here" >&2; exit 1; }
case "${1:-}" in
  build | ops | sanitize | kernels) "$1" ;;
  all) build; ops; sanitize; kernels ;;
  *) sed -n 2,3p "$0"; exit 2 ;;
esac
