// Rows by index: of a packed weight (embedding) and of a tensor (gather_rows).
#include "context.h"
#include "simd.h"

namespace PS_ISA {

/* One row out of its panel, whose layout weight.cpp describes. */
static void unpack_row(const Weight& w, int row, float* out) {
  const char* panel = w.panel(row / kPanel);
  const int lane = row % kPanel;
  if (w.dtype == PS_F32) {
    const float* from = reinterpret_cast<const float*>(panel) + lane;
    for (int j = 0; j < w.k; j++) out[j] = from[int64_t(j) * kPanel];
  } else if (w.dtype == PS_I8) {
    const int8_t* from = reinterpret_cast<const int8_t*>(panel) + 4 * lane;
    const float scale = w.scales(row / kPanel).scale[lane];
    for (int j = 0; j < w.k; j++) out[j] = from[int64_t(j / 4) * kStepBytes + j % 4] * scale;
  } else {
    const Bf16* from = reinterpret_cast<const Bf16*>(panel) + 2 * lane;
    for (int j = 0; j < w.k; j++) out[j] = to_float(from[int64_t(j / 2) * 2 * kPanel + j % 2]);
  }
}

void embedding(Context& ctx, ps_ptr out, ps_weight w, ps_ptr ids, int32_t t, int32_t dtype) {
  require_f32(dtype);
  require(t >= 0, "t >= 0");
  const Weight& matrix = weight(w);
  float* output = ctx.tensor<float>("out", out, int64_t(t) * matrix.k);
  const int32_t* row = ctx.tensor<int32_t>("ids", ids, t);
  ctx.check_indices("ids", row, t, matrix.n);
  ctx.pool.parallel(t, 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) unpack_row(matrix, row[i], output + i * matrix.k);
  });
}

void gather_rows(Context& ctx, ps_ptr out, ps_ptr x, ps_ptr rows, int32_t n, int32_t d, int32_t dtype) {
  require_f32(dtype);
  require(n >= 0 && d > 0, "n >= 0 and d > 0");
  float* output = ctx.tensor<float>("out", out, int64_t(n) * d);
  const int32_t* row = ctx.tensor<int32_t>("rows", rows, n);
  for (int64_t i = 0; i < n; i++) {
    const float* from = reinterpret_cast<const float*>(x) + int64_t(row[i]) * d;
    if (ctx.debug) {
      ctx.check_indices("rows", row + i, 1, INT32_MAX);
      ctx.tensor<float>("x (at the row wanted)", ps_ptr(from), d);
    }
    memcpy(output + i * d, from, d * sizeof(float));
  }
}

}  // namespace PS_ISA
