// out = x / sqrt(mean(x^2) + eps) * w (arXiv 1910.07467), with the residual added in passing.
#include "context.h"
#include "simd.h"

namespace PS_ISA {

static float root_mean_square_inverse(const float* x, int d, float eps) {
  Vec squares = zero();
  for (int i = 0; i < d; i += kLanes) {
    const Vec v = load(x + i, d - i);
    squares = fma(v, v, squares);
  }
  return 1.0f / sqrtf(sum(squares) / float(d) + eps);
}

void rms_norm(Context& ctx, ps_ptr out, ps_ptr x, ps_ptr residual, ps_ptr w, int32_t t, int32_t d, float eps,
              int32_t dtype) {
  require_f32(dtype);
  require(t >= 0 && d > 0, "t >= 0 and d > 0");
  const int64_t size = int64_t(t) * d;
  float* output = ctx.tensor<float>("out", out, size);
  const float* input = ctx.tensor<float>("x", x, size);
  const float* scale = ctx.tensor<float>("w", w, d);
  float* sums = residual ? ctx.tensor<float>("residual", residual, size) : nullptr;

  ctx.pool.parallel(t, 8, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) {
      const float* from = input + row * d;
      if (sums) {
        float* sum = sums + row * d;
        for (int i = 0; i < d; i += kLanes) store(sum + i, load(sum + i, d - i) + load(from + i, d - i), d - i);
        from = sum;
      }
      const Vec inverse = set1(root_mean_square_inverse(from, d, eps));
      for (int i = 0; i < d; i += kLanes)
        store(output + row * d + i, load(from + i, d - i) * inverse * load(scale + i, d - i), d - i);
    }
  });
}

}  // namespace PS_ISA
