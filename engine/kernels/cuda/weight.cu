// A matrix goes to the GPU as it is in a checkpoint, row after row; only the ends of rows are filled up with zeros, so
// that the kernels read whole steps of k. Rows of another type are converted on the host, a bounded piece at a time.
#include <algorithm>

#include "context.h"

static constexpr uint64_t kPiece = 8 << 20;

int32_t ps_weight_create(ps_ctx ctx, int32_t n, int32_t k, int32_t dtype, uint64_t* out_weight) {
  return guarded("ps_weight_create", [&] {
    if (n <= 0 || k <= 0) throw Error(PS_E_INVALID, "a matrix of %d rows and %d columns", n, k);
    if (dtype != PS_F32 && dtype != PS_BF16)
      throw Error(PS_E_UNSUPPORTED, "dtype %d; weights are f32 (0) or bf16 (2)", dtype);
    Weight w{n, k, dtype, ceil_div(k, Weight::kStep) * Weight::kStep, 0, nullptr};
    w.bytes = uint64_t(n) * w.ld * (dtype == PS_F32 ? 4 : 2);
    w.data = static_cast<char*>(enter(ctx, 0).allocate(w.bytes));
    *out_weight = (uint64_t) new Weight(w);
  });
}

int32_t ps_weight_destroy(ps_ctx ctx, ps_weight handle) {
  return guarded("ps_weight_destroy", [&] {
    const Weight* w = &weight(handle);
    enter(ctx, 0).release(w->data);
    delete w;
  });
}

int32_t ps_weight_bytes(ps_ctx, ps_weight w, uint64_t* out_bytes) {
  return guarded("ps_weight_bytes", [&] { *out_bytes = weight(w).bytes; });
}

template <class To, class From>
static void load_rows(Context& c, const Weight& w, int64_t row, int64_t rows, const From* src) {
  const int64_t piece = std::max<int64_t>(1, kPiece / (w.k * sizeof(To)));
  std::vector<To> converted(std::min(rows, piece) * w.k);
  for (int64_t done = 0; done < rows; done += piece) {
    const int64_t count = std::min(piece, rows - done);
    const From* from = src + done * w.k;
    for (int64_t i = 0; i < count * w.k; i++) converted[i] = from_float<To>(to_float(from[i]));
    check(cudaMemcpy2DAsync(w.data + (row + done) * w.ld * sizeof(To), w.ld * sizeof(To), converted.data(),
                            w.k * sizeof(To), w.k * sizeof(To), count, cudaMemcpyHostToDevice, c.stream),
          "cudaMemcpy2D");
    check(cudaStreamSynchronize(c.stream), "cudaStreamSynchronize");
  }
}

int32_t ps_weight_load(ps_ctx ctx, ps_weight handle, int32_t row, int32_t rows, const void* src, int32_t src_dtype) {
  return guarded("ps_weight_load", [&] {
    Context& c = enter(ctx, 0);
    const Weight& w = weight(handle);
    if (row < 0 || rows < 0 || rows > w.n - row)
      throw Error(PS_E_INVALID, "rows %d and %d more of a matrix of %d", row, rows, w.n);
    auto load = [&](auto* from) {
      w.dtype == PS_F32 ? load_rows<float>(c, w, row, rows, from) : load_rows<Bf16>(c, w, row, rows, from);
    };
    if (src_dtype == PS_F32) return load(static_cast<const float*>(src));
    if (src_dtype == PS_BF16) return load(static_cast<const Bf16*>(src));
    if (src_dtype == PS_F16) return load(static_cast<const Half*>(src));
    throw Error(PS_E_UNSUPPORTED, "src_dtype %d; matrices are read from f32, f16 and bf16", src_dtype);
  });
}
