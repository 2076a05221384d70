// Rotary embedding: the pair (a, b) of dimension i at position p becomes (a cos - b sin, b cos + a sin) of angle p f_i.
// A block takes a row, a thread a pair at a time.
#include <algorithm>

#include "context.h"

namespace PS_ISA {

template <class T>
__global__ void rotate(T* qkv, const int32_t* positions, const float* cos_sin, int heads, int64_t width, int hd, int rot,
                       bool interleaved) {
  T* row = qkv + blockIdx.x * width;
  const float* cos = cos_sin + int64_t(positions[blockIdx.x]) * rot;
  const int half = rot / 2;
  for (int pair = threadIdx.x; pair < heads * half; pair += blockDim.x) {
    const int i = pair % half;
    T* head = row + int64_t(pair / half) * hd;
    T& first = head[interleaved ? 2 * i : i];
    T& second = head[interleaved ? 2 * i + 1 : i + half];
    const float a = to_float(first), b = to_float(second), c = cos[i], s = cos[i + half];
    first = from_float<T>(a * c - b * s);
    second = from_float<T>(b * c + a * s);
  }
}

void rope(Context& ctx, ps_ptr qkv, ps_ptr positions, ps_ptr cos_sin, int32_t t, int32_t hq, int32_t hkv, int32_t hd,
          int32_t rot, int32_t interleaved, int32_t dtype) {
  require(t >= 0 && hq > 0 && hkv > 0 && hd > 0, "t >= 0 and hq, hkv, hd > 0");
  require(rot > 0 && rot % 2 == 0 && rot <= hd, "rot is even and in 2..hd");
  const int64_t width = int64_t(hq + 2 * hkv) * hd;
  const int32_t* position = ctx.tensor<int32_t>("positions", positions, t);
  if (ctx.debug) {
    ctx.check_indices("positions", position, t, INT32_MAX);
    for (int32_t p : ctx.fetch(position, t)) ctx.tensor<float>("cos_sin (of a position)", cos_sin, (p + int64_t(1)) * rot);
  }
  with_activations(dtype, [&](auto type) {
    using T = decltype(type);
    launch(ctx, rotate<T>, t, 128, 0, ctx.tensor<T>("qkv", qkv, t * width), position,
           ctx.tensor<float>("cos_sin", cos_sin, rot), hq + hkv, width, hd, rot, interleaved != 0);
  });
}

}  // namespace PS_ISA
