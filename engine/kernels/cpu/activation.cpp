// What stands between the linear ops: out = act(gate) * up, and x += y.
#include "context.h"
#include "simd.h"

namespace PS_ISA {

static Vec silu(Vec x) { return x * sigmoid(x); }

/* 0.5 x (1 + tanh(u)) = x sigmoid(2u), u = sqrt(2 / pi) (x + 0.044715 x^3): arXiv 1606.08415 */
static Vec gelu_tanh(Vec x) {
  const Vec u = set1(0.7978845608028654f) * fma(set1(0.044715f) * x * x, x, x);
  return x * sigmoid(u + u);
}

/* erfc(z) for z >= 0 by Chebyshev fitting, relative error below 1.2e-7: Numerical Recipes, erfcc */
static Vec erfc_of_positive(Vec z) {
  static constexpr float terms[] = {-0.82215223f, 1.48851587f, -1.13520398f, 0.27886807f, -0.18628806f,
                                    0.09678418f,  0.37409196f, 1.00002368f,  -1.26551223f};
  const Vec t = set1(1) / fma(z, set1(0.5f), set1(1));
  Vec p = set1(0.17087277f);
  for (float term : terms) p = fma(p, t, set1(term));
  return t * exp(fma(zero() - z, z, p));
}

/* 0.5 x (1 + erf(x / sqrt 2)) = 0.5 x erfc(-x / sqrt 2) */
static Vec gelu(Vec x) {
  const Vec z = x * set1(0.7071067811865476f);
  const Vec positive = max(z, zero() - z);
  const Vec tail = erfc_of_positive(positive);
  return set1(0.5f) * x * where_less(z, zero(), tail, set1(2) - tail);
}

template <Vec (*act)(Vec)>
static void gate(const float* gate, const float* up, float* out, int d) {
  for (int i = 0; i < d; i += kLanes) store(out + i, act(load(gate + i, d - i)) * load(up + i, d - i), d - i);
}

void gated_activation(Context& ctx, ps_ptr out, ps_ptr gate_up, int32_t t, int32_t d, int32_t activation,
                      int32_t dtype) {
  require_f32(dtype);
  require(t >= 0 && d > 0, "t >= 0 and d > 0");
  if (activation < PS_ACT_SILU || activation > PS_ACT_GELU)
    throw Error(PS_E_UNSUPPORTED, "there is no activation %d", activation);
  auto run = activation == PS_ACT_SILU ? gate<silu> : activation == PS_ACT_GELU_TANH ? gate<gelu_tanh> : gate<gelu>;
  float* output = ctx.tensor<float>("out", out, int64_t(t) * d);
  const float* input = ctx.tensor<float>("gate_up", gate_up, int64_t(t) * 2 * d);
  ctx.pool.parallel(t, 4, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) run(input + row * 2 * d, input + row * 2 * d + d, output + row * d, d);
  });
}

void add(Context& ctx, ps_ptr x, ps_ptr y, int64_t n, int32_t dtype) {
  require_f32(dtype);
  require(n >= 0, "n >= 0");
  float* sums = ctx.tensor<float>("x", x, n);
  const float* terms = ctx.tensor<float>("y", y, n);
  ctx.pool.parallel((n + kLanes - 1) / kLanes, 1024, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * kLanes; i < end * kLanes && i < n; i += kLanes) {
      const int lanes = n - i < kLanes ? int(n - i) : kLanes;
      store(sums + i, load(sums + i, lanes) + load(terms + i, lanes), lanes);
    }
  });
}

}  // namespace PS_ISA
