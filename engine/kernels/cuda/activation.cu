// What stands between the linear ops: out = act(gate) * up, and x += y.
#include <algorithm>

#include "context.h"

namespace PS_ISA {

constexpr int kThreads = 256;

__device__ inline float activate(float x, int activation) {
  if (activation == PS_ACT_SILU) return x / (1.0f + expf(-x));
  if (activation == PS_ACT_GELU) return 0.5f * x * erfcf(x * -0.7071067811865476f);
  // 0.5 x (1 + tanh(u)) = x sigmoid(2u), u = sqrt(2 / pi) (x + 0.044715 x^3): arXiv 1606.08415
  const float u = 0.7978845608028654f * (x + 0.044715f * x * x * x);
  return x / (1.0f + expf(-2.0f * u));
}

template <class T>
__global__ void gate(T* out, const T* gate_up, int d, int activation) {
  const T* row = gate_up + int64_t(blockIdx.y) * 2 * d;
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < d) out[int64_t(blockIdx.y) * d + i] = from_float<T>(activate(to_float(row[i]), activation) * to_float(row[d + i]));
}

template <class T>
__global__ void accumulate(T* x, const T* y, int64_t n) {
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += int64_t(gridDim.x) * blockDim.x)
    x[i] = from_float<T>(to_float(x[i]) + to_float(y[i]));
}

void gated_activation(Context& ctx, ps_ptr out, ps_ptr gate_up, int32_t t, int32_t d, int32_t activation,
                      int32_t dtype) {
  require(t >= 0 && t <= 65535 && d > 0, "t in 0..65535 and d > 0");
  if (activation < PS_ACT_SILU || activation > PS_ACT_GELU)
    throw Error(PS_E_UNSUPPORTED, "there is no activation %d", activation);
  with_activations(dtype, [&](auto type) {
    using T = decltype(type);
    launch(ctx, gate<T>, dim3(ceil_div(d, kThreads), t), kThreads, 0, ctx.tensor<T>("out", out, int64_t(t) * d),
           ctx.tensor<T>("gate_up", gate_up, int64_t(t) * 2 * d), d, activation);
  });
}

void add(Context& ctx, ps_ptr x, ps_ptr y, int64_t n, int32_t dtype) {
  require(n >= 0, "n >= 0");
  const int64_t blocks = std::min<int64_t>(ceil_div(n, kThreads), 8 * ctx.processors);
  with_activations(dtype, [&](auto type) {
    using T = decltype(type);
    T* sums = ctx.tensor<T>("x", x, n);
    launch(ctx, accumulate<T>, dim3(blocks), kThreads, 0, sums, ctx.tensor<T>("y", y, n), n);
  });
}

}  // namespace PS_ISA
