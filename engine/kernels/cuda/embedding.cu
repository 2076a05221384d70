// Rows by index: of a weight (embedding) and of a tensor (gather_rows). A block copies a row.
#include "context.h"

namespace PS_ISA {

template <class To, class From>
__global__ void copy_rows(To* out, const From* x, const int32_t* rows, int d, int64_t ldx) {
  const From* from = x + rows[blockIdx.x] * ldx;
  To* to = out + int64_t(blockIdx.x) * d;
  for (int i = threadIdx.x; i < d; i += blockDim.x) to[i] = from_float<To>(to_float(from[i]));
}

constexpr int kThreads = 256;

void embedding(Context& ctx, ps_ptr out, ps_weight w, ps_ptr ids, int32_t t, int32_t dtype) {
  require(t >= 0, "t >= 0");
  const Weight& matrix = weight(w);
  with_activations(dtype, [&](auto type) {
    using T = decltype(type);
    T* output = ctx.tensor<T>("out", out, int64_t(t) * matrix.k);
    const int32_t* rows = ctx.tensor<int32_t>("ids", ids, t);
    ctx.check_indices("ids", rows, t, matrix.n);
    if (matrix.dtype == PS_F32)
      launch(ctx, copy_rows<T, float>, t, kThreads, 0, output, matrix.as<float>(), rows, matrix.k, matrix.ld);
    else
      launch(ctx, copy_rows<T, Bf16>, t, kThreads, 0, output, matrix.as<Bf16>(), rows, matrix.k, matrix.ld);
  });
}

void gather_rows(Context& ctx, ps_ptr out, ps_ptr x, ps_ptr rows, int32_t n, int32_t d, int32_t dtype) {
  require(n >= 0 && d > 0, "n >= 0 and d > 0");
  with_activations(dtype, [&](auto type) {
    using T = decltype(type);
    T* output = ctx.tensor<T>("out", out, int64_t(n) * d);
    const int32_t* row = ctx.tensor<int32_t>("rows", rows, n);
    const T* input = reinterpret_cast<const T*>(x);
    if (ctx.debug) {
      ctx.check_indices("rows", row, n, INT32_MAX);
      for (int32_t wanted : ctx.fetch(row, n)) ctx.tensor<T>("x (at the row wanted)", ps_ptr(input + int64_t(wanted) * d), d);
    }
    launch(ctx, copy_rows<T, T>, n, kThreads, 0, output, input, row, d, int64_t(d));
  });
}

}  // namespace PS_ISA
