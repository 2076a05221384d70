// Packs a matrix so that each SIMD lane of the linear op is one output. The n rows are cut in panels of 32; a panel is
//   f32   [k][32]         one row of it: the weights of 32 outputs for one k
//   bf16  [k / 2][32][2]  pairs of neighbouring k, as vdpbf16ps takes them; an odd k is filled up with a zero
// Rows beyond n in the last panel stay zero. The struct and its panels are one allocation.
#include <algorithm>
#include <new>

#include "context.h"
#include "half.h"

static constexpr uint64_t kHead = 64;

int32_t ps_weight_create(ps_ctx ctx, int32_t n, int32_t k, int32_t dtype, uint64_t* out_weight) {
  return guarded("ps_weight_create", [&] {
    if (n <= 0 || k <= 0) throw Error(PS_E_INVALID, "a matrix of %d rows and %d columns", n, k);
    if (dtype != PS_F32 && dtype != PS_BF16)
      throw Error(PS_E_UNSUPPORTED, "dtype %d; weights are f32 (0) or bf16 (2) on the CPU", dtype);
    const uint64_t panel_bytes = dtype == PS_F32 ? uint64_t(k) * kPanel * 4 : uint64_t(k + 1) / 2 * kPanel * 4;
    Weight w{n, k, dtype, panel_bytes, 0, nullptr};
    w.bytes = panel_bytes * w.panels();
    char* base = static_cast<char*>(context(ctx).memory.allocate(kHead + w.bytes));
    if (!base) throw Error(PS_E_OOM, "no memory for a matrix of %llu bytes", (unsigned long long)w.bytes);
    w.data = base + kHead;
    *out_weight = (uint64_t) new (base) Weight(w);
  });
}

int32_t ps_weight_destroy(ps_ctx ctx, ps_weight w) { return ps_free(ctx, w); }

int32_t ps_weight_bytes(ps_ctx, ps_weight w, uint64_t* out_bytes) {
  return guarded("ps_weight_bytes", [&] { *out_bytes = weight(w).bytes; });
}

/* Rows [first, last), which lie in one panel, from src = the matrix at row `first`. */
template <class Source>
static void load_f32(float* panel, int k, int lane, int count, const Source* src) {
  for (int j = 0; j < k; j++)
    for (int i = 0; i < count; i++) panel[int64_t(j) * kPanel + lane + i] = to_float(src[int64_t(i) * k + j]);
}

template <class Source>
static void load_bf16(Bf16* panel, int k, int lane, int count, const Source* src) {
  for (int j = 0; j < k; j++)
    for (int i = 0; i < count; i++)
      panel[(int64_t(j / 2) * kPanel + lane + i) * 2 + j % 2] = from_float<Bf16>(to_float(src[int64_t(i) * k + j]));
}

template <class Source>
static void load_rows(Context& c, const Weight& w, int row, int rows, const Source* src) {
  const int first = row / kPanel, last = (row + rows - 1) / kPanel;
  c.pool.parallel(last - first + 1, 1, [&](int64_t begin, int64_t end) {
    for (int64_t p = first + begin; p < first + end; p++) {
      const int from = std::max<int>(row, p * kPanel), to = std::min<int>(row + rows, (p + 1) * kPanel);
      char* panel = w.data + p * w.panel_bytes;
      const Source* rows_of_panel = src + int64_t(from - row) * w.k;
      if (w.dtype == PS_F32)
        load_f32(reinterpret_cast<float*>(panel), w.k, from % kPanel, to - from, rows_of_panel);
      else
        load_bf16(reinterpret_cast<Bf16*>(panel), w.k, from % kPanel, to - from, rows_of_panel);
    }
  });
}

int32_t ps_weight_load(ps_ctx ctx, ps_weight handle, int32_t row, int32_t rows, const void* src, int32_t src_dtype) {
  return guarded("ps_weight_load", [&] {
    Context& c = context(ctx);
    const Weight& w = weight(handle);
    if (row < 0 || rows < 0 || rows > w.n - row)
      throw Error(PS_E_INVALID, "rows %d and %d more of a matrix of %d", row, rows, w.n);
    if (rows == 0) return;
    if (src_dtype == PS_F32) return load_rows(c, w, row, rows, static_cast<const float*>(src));
    if (src_dtype == PS_BF16) return load_rows(c, w, row, rows, static_cast<const Bf16*>(src));
    if (src_dtype == PS_F16) return load_rows(c, w, row, rows, static_cast<const Half*>(src));
    throw Error(PS_E_UNSUPPORTED, "src_dtype %d; matrices are read from f32, f16 and bf16", src_dtype);
  });
}
