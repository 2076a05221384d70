// y = x W^T + bias. bf16 weights: own tensor-core tiles for every t in deterministic mode; otherwise whichever is fastest
// for t: own products of few vectors, cuBLASLt where it was found, own tiles where it was not. f32 weights: plain fused
// multiply-adds in f32, for models that are checked against float64 rather than served.
#include "cublaslt.h"
#include "gemm.h"

namespace PS_ISA {

constexpr int kTile = 64, kDepth = 16;

/* A block computes 64 x 64 outputs, a thread 4 x 4 of them, 16 apart; one accumulator each, k ascending. */
template <class T>
__global__ void multiply_f32(T* y, int64_t ldy, const T* x, int64_t ldx, const float* w, int64_t ldw, const float* bias,
                             int t, int n, int k) {
  __shared__ float rows[kTile][kDepth + 1], columns[kTile][kDepth + 1];
  const int row0 = blockIdx.x * kTile, column0 = blockIdx.y * kTile;
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  float acc[4][4] = {};
  for (int begin = 0; begin < k; begin += kDepth) {
    __syncthreads();
    for (int i = ty; i < kTile; i += 16) {
      const bool inside = begin + tx < k;
      rows[i][tx] = inside && row0 + i < t ? to_float(x[(row0 + i) * ldx + begin + tx]) : 0.0f;
      columns[i][tx] = inside && column0 + i < n ? w[(column0 + i) * ldw + begin + tx] : 0.0f;
    }
    __syncthreads();
    for (int j = 0; j < kDepth; j++)
#pragma unroll
      for (int r = 0; r < 4; r++)
#pragma unroll
        for (int c = 0; c < 4; c++) acc[r][c] = fmaf(rows[ty + 16 * r][j], columns[tx + 16 * c][j], acc[r][c]);
  }
  for (int r = 0; r < 4; r++)
    for (int c = 0; c < 4; c++) {
      const int i = row0 + ty + 16 * r, j = column0 + tx + 16 * c;
      if (i < t && j < n) y[i * ldy + j] = from_float<T>(bias ? acc[r][c] + bias[j] : acc[r][c]);
    }
}

/* Rows as bf16, of whole steps: rounded, and filled up with zeros. */
template <class T>
__global__ void pack_rows(Bf16* out, int64_t ld, const T* x, int64_t ldx, int k) {
  for (int i = threadIdx.x; i < ld; i += blockDim.x)
    out[blockIdx.x * ld + i] = from_float<Bf16>(i < k ? to_float(x[blockIdx.x * ldx + i]) : 0.0f);
}

template <class T>
static void multiply_bf16(Context& ctx, T* y, int64_t ldy, const T* x, int64_t ldx, const Weight& w, const float* bias, int t) {
  const Bf16* rows = reinterpret_cast<const Bf16*>(x);
  const bool usable = sizeof(T) == sizeof(Bf16) && w.k == w.ld && ldx % 8 == 0 && uint64_t(x) % 16 == 0;
  if (!usable) {
    Bf16* packed = ctx.scratch<Bf16>(t * w.ld);
    launch(ctx, pack_rows<T>, t, 256, 0, packed, w.ld, x, ldx, w.k);
    rows = packed;
    ldx = w.ld;
  }
  if (ctx.deterministic) return multiply_tiles(ctx, y, ldy, rows, ldx, w, bias, t);
  if (t <= kMaxVectorRows) return multiply_vectors(ctx, y, ldy, rows, ldx, w, bias, t);
  if (ctx.blas && multiply_cublaslt(ctx, y, sizeof(T) == 4 ? PS_F32 : PS_BF16, ldy, rows, ldx, w, bias, t)) return;
  multiply_tiles(ctx, y, ldy, rows, ldx, w, bias, t);
}

void linear(Context& ctx, ps_ptr y, ps_ptr x, ps_weight handle, ps_ptr bias, int32_t t, int64_t ldx, int64_t ldy,
            int32_t dtype) {
  const Weight& w = weight(handle);
  require(t >= 0 && ldx >= w.k && ldy >= w.n, "t >= 0, ldx >= k and ldy >= n");
  if (t == 0) return;
  const float* terms = bias ? ctx.tensor<float>("bias", bias, w.n) : nullptr;
  with_activations(dtype, [&](auto type) {
    using T = decltype(type);
    const T* input = ctx.tensor<T>("x", x, (t - 1) * ldx + w.k);
    T* output = ctx.tensor<T>("y", y, (t - 1) * ldy + w.n);
    if (w.dtype == PS_BF16) return multiply_bf16(ctx, output, ldy, input, ldx, w, terms, t);
    const dim3 grid(ceil_div(t, kTile), ceil_div(w.n, kTile));
    launch(ctx, multiply_f32<T>, grid, 256, 0, output, ldy, input, ldx, w.as<float>(), w.ld, terms, t, w.n, w.k);
  });
}

}  // namespace PS_ISA
