// Matrix products on tensor cores (mma.sync, sm_80 and later). A block computes a tile of y; its warps share the tiles
// of x and W, which arrive in shared memory by asynchronous copies, kStages steps of 64 deep. Every output has one
// accumulator that takes k in ascending steps of 16, in tiles of every size: the bits of a row do not depend on t.
#include "gemm.h"
#include "mma.h"

namespace PS_ISA {

constexpr int kStep = Weight::kStep, kPieces = kStep / 8;

template <int BM, int BN, int WARPS_M, int WARPS_N, int STAGES>
struct Tiling {
  static constexpr int kRows = BM, kColumns = BN, kThreads = 32 * WARPS_M * WARPS_N;
  static constexpr int kStage = (BM + BN) * kStep;  // elements
  static constexpr int kShared = STAGES * kStage * 2;
  static constexpr int kStages = STAGES, kWarpColumns = WARPS_N;
  static constexpr int M = BM / WARPS_M / 16, N = BN / WARPS_N / 8;  // mma tiles of a warp
};

/* Starts copying step `step` of the tile's rows of x and W. */
template <class Tile>
__device__ void fetch(Bf16* stage, const Bf16* x, int64_t ldx, int rows, const Bf16* w, int64_t ldw, int columns, int step) {
  for (int i = threadIdx.x; i < (Tile::kRows + Tile::kColumns) * kPieces; i += Tile::kThreads) {
    const int row = i / kPieces, piece = i % kPieces, column = row - Tile::kRows;
    const bool inside = row < Tile::kRows ? row < rows : column < columns;
    const Bf16* from = row < Tile::kRows ? x + row * ldx : w + column * ldw;
    copy_async(stage + swizzled<kPieces>(row, piece), inside ? from + step * kStep + piece * 8 : x, inside);
  }
}

/* One step of a warp: rows from `row`, columns from `column` of the tile. */
template <class Tile>
__device__ void accumulate(float (&acc)[Tile::M][Tile::N][4], const Bf16* stage, int row, int column) {
  const int lane = threadIdx.x % 32;
  for (int half = 0; half < 2; half++) {  // 32 of k, two mma steps
    uint32_t a[Tile::M][2][4];
#pragma unroll
    for (int m = 0; m < Tile::M; m++)
#pragma unroll
      for (int k = 0; k < 2; k++)
        load_matrices<false>(a[m][k], stage + swizzled<kPieces>(row + 16 * m + lane % 16, 4 * half + 2 * k + lane / 16));
#pragma unroll
    for (int n = 0; n < Tile::N; n++) {
      uint32_t b[4];
      load_matrices<false>(b, stage + swizzled<kPieces>(Tile::kRows + column + 8 * n + lane % 8, 4 * half + lane / 8));
#pragma unroll
      for (int k = 0; k < 2; k++)
#pragma unroll
        for (int m = 0; m < Tile::M; m++) mma(acc[m][n], a[m][k], b[2 * k], b[2 * k + 1]);
    }
  }
}

template <class Tile, class Y>
__global__ void __launch_bounds__(Tile::kThreads) multiply(Y* y, int64_t ldy, const Bf16* x, int64_t ldx, const Bf16* w,
                                                           int64_t ldw, const float* bias, int t, int n) {
  PS_SHARED(memory);
  Bf16* stages = reinterpret_cast<Bf16*>(memory);
  const int row0 = blockIdx.x * Tile::kRows, column0 = blockIdx.y * Tile::kColumns;
  x += row0 * ldx;
  w += column0 * ldw;
  const int steps = int(ldw / kStep);
  auto fetch_step = [&](int step) {
    if (step < steps)
      fetch<Tile>(stages + step % Tile::kStages * Tile::kStage, x, ldx, t - row0, w, ldw, n - column0, step);
    commit_copies();
  };
  for (int step = 0; step < Tile::kStages - 1; step++) fetch_step(step);

  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int row = warp / Tile::kWarpColumns * Tile::M * 16, column = warp % Tile::kWarpColumns * Tile::N * 8;
  float acc[Tile::M][Tile::N][4] = {};
  for (int step = 0; step < steps; step++) {
    wait_copies<Tile::kStages - 2>();
    __syncthreads();  // the step is there for all, and the stage filled next has been read by all
    fetch_step(step + Tile::kStages - 1);
    accumulate<Tile>(acc, stages + step % Tile::kStages * Tile::kStage, row, column);
  }

#pragma unroll
  for (int m = 0; m < Tile::M; m++)
#pragma unroll
    for (int c = 0; c < Tile::N * 4; c++) {
      const int i = row0 + row + 16 * m + lane / 4 + (c % 4) / 2 * 8;
      const int j = column0 + column + c / 4 * 8 + lane % 4 * 2 + c % 2;
      const float value = acc[m][c / 4][c % 4];
      if (i < t && j < n) y[i * ldy + j] = from_float<Y>(bias ? value + bias[j] : value);
    }
}

template <class Tile, class Y>
static void run(Context& ctx, Y* y, int64_t ldy, const Bf16* x, int64_t ldx, const Weight& w, const float* bias, int t) {
  const dim3 grid(ceil_div(t, Tile::kRows), ceil_div(w.n, Tile::kColumns));
  launch(ctx, multiply<Tile, Y>, grid, Tile::kThreads, Tile::kShared, y, ldy, x, ldx, w.as<Bf16>(), w.ld, bias, t, w.n);
}

}  // namespace PS_ISA

template <class Y>
void multiply_tiles(Context& ctx, Y* y, int64_t ldy, const Bf16* x, int64_t ldx, const Weight& w, const float* bias, int t) {
  using namespace PS_ISA;
  if (t <= 16) return run<Tiling<16, 32, 1, 4, 8>>(ctx, y, ldy, x, ldx, w, bias, t);
  if (t <= 64) return run<Tiling<64, 64, 2, 2, 4>>(ctx, y, ldy, x, ldx, w, bias, t);
  run<Tiling<128, 128, 2, 4, 3>>(ctx, y, ldy, x, ldx, w, bias, t);
}

template void multiply_tiles(Context&, float*, int64_t, const Bf16*, int64_t, const Weight&, const float*, int);
template void multiply_tiles(Context&, Bf16*, int64_t, const Bf16*, int64_t, const Weight&, const float*, int);
