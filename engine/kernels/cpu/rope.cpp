// Rotary embedding: the pair (a, b) of dimension i at position p becomes (a cos - b sin, b cos + a sin) of angle p f_i.
#include "context.h"
#include "simd.h"

namespace PS_ISA {

/* Pairs (i, i + half). */
static void rotate_halves(float* head, const float* cos, const float* sin, int half) {
  for (int i = 0; i < half; i += kLanes) {
    const int n = half - i;
    const Vec a = load(head + i, n), b = load(head + half + i, n);
    const Vec c = load(cos + i, n), s = load(sin + i, n);
    store(head + i, a * c - b * s, n);
    store(head + half + i, b * c + a * s, n);
  }
}

/* Pairs (2i, 2i + 1). */
static void rotate_neighbours(float* head, const float* cos, const float* sin, int half) {
  for (int i = 0; i < half; i++) {
    const float a = head[2 * i], b = head[2 * i + 1];
    head[2 * i] = a * cos[i] - b * sin[i];
    head[2 * i + 1] = b * cos[i] + a * sin[i];
  }
}

void rope(Context& ctx, ps_ptr qkv, ps_ptr positions, ps_ptr cos_sin, int32_t t, int32_t hq, int32_t hkv, int32_t hd,
          int32_t rot, int32_t interleaved, int32_t dtype) {
  require_f32(dtype);
  require(t >= 0 && hq > 0 && hkv > 0 && hd > 0, "t >= 0 and hq, hkv, hd > 0");
  require(rot > 0 && rot % 2 == 0 && rot <= hd, "rot is even and in 2..hd");
  const int64_t width = int64_t(hq + 2 * hkv) * hd;
  float* rows = ctx.tensor<float>("qkv", qkv, t * width);
  const int32_t* position = ctx.tensor<int32_t>("positions", positions, t);
  if (ctx.debug) {
    int32_t last = 0;
    for (int i = 0; i < t; i++) last = position[i] > last ? position[i] : last;
    ctx.check_indices("positions", position, t, INT32_MAX);
    ctx.tensor<float>("cos_sin (of the largest position)", cos_sin, int64_t(last + 1) * rot);
  }
  const float* table = ctx.tensor<float>("cos_sin", cos_sin, rot);

  ctx.pool.parallel(t, 8, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) {
      const float* cos = table + int64_t(position[row]) * rot;
      const float* sin = cos + rot / 2;
      for (int h = 0; h < hq + hkv; h++) {
        float* head = rows + row * width + int64_t(h) * hd;
        interleaved ? rotate_neighbours(head, cos, sin, rot / 2) : rotate_halves(head, cos, sin, rot / 2);
      }
    }
  });
}

}  // namespace PS_ISA
