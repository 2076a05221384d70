// Matrix times few vectors, bound by reading W: a warp takes two rows of W, each lane 16 bytes at a time, and sums the
// products of its lanes at the end. Not the order of gemm.cu, so not for deterministic mode.
#include "gemm.h"
#include "reduce.h"

namespace PS_ISA {

constexpr int kOutputs = 2, kWarps = 4;

/* The two bf16 of a word. */
__device__ inline float low(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ inline float high(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

__device__ inline float dot(float sum, const uint4& a, const uint4& b) {
  const uint32_t left[4] = {a.x, a.y, a.z, a.w}, right[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
  for (int i = 0; i < 4; i++) sum = fmaf(high(left[i]), high(right[i]), fmaf(low(left[i]), low(right[i]), sum));
  return sum;
}

template <int ROWS, class Y>
__global__ void multiply(Y* y, int64_t ldy, const Bf16* x, int64_t ldx, const Bf16* w, int64_t ldw, const float* bias, int n) {
  const int first = (blockIdx.x * kWarps + threadIdx.x / 32) * kOutputs, lane = threadIdx.x % 32;
  if (first >= n) return;
  const Bf16* row[kOutputs];
  for (int j = 0; j < kOutputs; j++) row[j] = w + (first + j < n ? first + j : first) * ldw;
  float acc[ROWS][kOutputs] = {};
#pragma unroll 4
  for (int k = 8 * lane; k < ldw; k += 8 * 32) {
    uint4 weights[kOutputs];
#pragma unroll
    for (int j = 0; j < kOutputs; j++) weights[j] = *reinterpret_cast<const uint4*>(row[j] + k);
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
      const uint4 values = *reinterpret_cast<const uint4*>(x + i * ldx + k);
#pragma unroll
      for (int j = 0; j < kOutputs; j++) acc[i][j] = dot(acc[i][j], weights[j], values);
    }
  }
#pragma unroll
  for (int i = 0; i < ROWS; i++)
#pragma unroll
    for (int j = 0; j < kOutputs; j++) {
      const float value = warp_sum(acc[i][j]);
      const int column = first + j;
      if (lane == 0 && column < n) y[i * ldy + column] = from_float<Y>(bias ? value + bias[column] : value);
    }
}

template <int ROWS, class Y>
static void run(Context& ctx, Y* y, int64_t ldy, const Bf16* x, int64_t ldx, const Weight& w, const float* bias) {
  launch(ctx, multiply<ROWS, Y>, dim3(ceil_div(w.n, kWarps * kOutputs)), 32 * kWarps, 0, y, ldy, x, ldx, w.as<Bf16>(), w.ld,
         bias, w.n);
}

}  // namespace PS_ISA

template <class Y>
void multiply_vectors(Context& ctx, Y* y, int64_t ldy, const Bf16* x, int64_t ldx, const Weight& w, const float* bias, int t) {
  using namespace PS_ISA;
  constexpr void (*runs[])(Context&, Y*, int64_t, const Bf16*, int64_t, const Weight&, const float*) = {
      run<1, Y>, run<2, Y>, run<3, Y>, run<4, Y>, run<5, Y>, run<6, Y>, run<7, Y>, run<8, Y>};
  runs[t - 1](ctx, y, ldy, x, ldx, w, bias);
}

template void multiply_vectors(Context&, float*, int64_t, const Bf16*, int64_t, const Weight&, const float*, int);
template void multiply_vectors(Context&, Bf16*, int64_t, const Bf16*, int64_t, const Weight&, const float*, int);
