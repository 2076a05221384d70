// out = x / sqrt(mean(x^2) + eps) * w (arXiv 1910.07467), with the residual added in passing. A block takes a row; its
// number of threads follows from d alone, so the order of the sum does.
#include <algorithm>

#include "context.h"
#include "reduce.h"

namespace PS_ISA {

template <class T>
__global__ void normalize(T* out, const T* x, T* residual, const float* w, int d, float eps) {
  const int64_t row = int64_t(blockIdx.x) * d;
  float squares = 0;
  for (int i = threadIdx.x; i < d; i += blockDim.x) {
    float value = to_float(x[row + i]);
    if (residual) {
      residual[row + i] = from_float<T>(to_float(residual[row + i]) + value);
      value = to_float(residual[row + i]);
    }
    squares += value * value;
  }
  const float inverse = 1.0f / sqrtf(block_sum(squares) / float(d) + eps);
  const T* from = residual ? residual : x;
  for (int i = threadIdx.x; i < d; i += blockDim.x)
    out[row + i] = from_float<T>(to_float(from[row + i]) * inverse * w[i]);
}

void rms_norm(Context& ctx, ps_ptr out, ps_ptr x, ps_ptr residual, ps_ptr w, int32_t t, int32_t d, float eps,
              int32_t dtype) {
  require(t >= 0 && d > 0, "t >= 0 and d > 0");
  const int64_t size = int64_t(t) * d;
  const int threads = int(std::min<int64_t>(512, ceil_div(d, 32) * 32));
  with_activations(dtype, [&](auto type) {
    using T = decltype(type);
    launch(ctx, normalize<T>, t, threads, 0, ctx.tensor<T>("out", out, size), ctx.tensor<T>("x", x, size),
           residual ? ctx.tensor<T>("residual", residual, size) : nullptr, ctx.tensor<float>("w", w, d), d, eps);
  });
}

}  // namespace PS_ISA
