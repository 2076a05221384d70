// Packs a matrix so that each SIMD lane of the linear op is one output. The n rows are cut in panels of 32. A panel is
// made of steps; a step holds four bytes of each of its 32 outputs:
//   f32   [k][32]         one k
//   bf16  [k / 2][32][2]  two neighbouring k, as vdpbf16ps takes them
//   int8  [k / 4][32][4]  four, as vpdpbusd takes them; behind the steps Scales
// bf16 and int8 have a multiple of 16 steps, as tiles of AMX take them: what is beyond k is zero, and so are rows beyond
// n in the last panel. The struct and its panels are one allocation.
#include <algorithm>
#include <cmath>
#include <new>

#include "context.h"
#include "half.h"

static constexpr uint64_t kHead = 64;
static constexpr int kMostInt8 = 65536;  // 127 * 255 * k stays below 2^31

static int steps_of(int k, int dtype) {
  if (dtype == PS_F32) return k;
  const int columns = dtype == PS_BF16 ? 32 : 64;
  return (k + columns - 1) / columns * kTileSteps;
}

int32_t ps_weight_create(ps_ctx ctx, int32_t n, int32_t k, int32_t dtype, uint64_t* out_weight) {
  return guarded("ps_weight_create", [&] {
    if (n <= 0 || k <= 0) throw Error(PS_E_INVALID, "a matrix of %d rows and %d columns", n, k);
    if (dtype != PS_F32 && dtype != PS_BF16 && dtype != PS_I8)
      throw Error(PS_E_UNSUPPORTED, "dtype %d; weights are f32 (0), bf16 (2) or int8 (4) on the CPU", dtype);
    if (dtype == PS_I8 && k > kMostInt8)
      throw Error(PS_E_UNSUPPORTED, "%d columns of int8; their sums are exact up to %d", k, kMostInt8);
    Weight w{n, k, dtype, steps_of(k, dtype), 0, 0, nullptr};
    w.panel_bytes = uint64_t(w.steps) * kStepBytes + (dtype == PS_I8 ? sizeof(Scales) : 0);
    w.bytes = w.panel_bytes * w.panels();
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

/* Rows of a panel from `lane`, `count` of them, from src = the matrix at the first of them. */
template <class Source>
static void load_f32(const Weight& w, char* panel, int lane, int count, const Source* src) {
  float* to = reinterpret_cast<float*>(panel) + lane;
  for (int j = 0; j < w.k; j++)
    for (int i = 0; i < count; i++) to[int64_t(j) * kPanel + i] = to_float(src[int64_t(i) * w.k + j]);
}

template <class Source>
static void load_bf16(const Weight& w, char* panel, int lane, int count, const Source* src) {
  Bf16* to = reinterpret_cast<Bf16*>(panel) + 2 * lane;
  for (int j = 0; j < w.k; j++)
    for (int i = 0; i < count; i++)
      to[int64_t(j / 2) * 2 * kPanel + 2 * i + j % 2] = from_float<Bf16>(to_float(src[int64_t(i) * w.k + j]));
}

template <class Source>
static void load_int8(const Weight& w, char* panel, int lane, int count, const Source* src) {
  Scales& scales = *reinterpret_cast<Scales*>(panel + uint64_t(w.steps) * kStepBytes);
  for (int i = 0; i < count; i++, src += w.k) {
    int8_t* to = reinterpret_cast<int8_t*>(panel) + 4 * (lane + i);
    float largest = 0;
    for (int j = 0; j < w.k; j++) largest = std::max(largest, std::fabs(to_float(src[j])));
    const float inverse = inverse_scale(largest, kInt8Most);
    int32_t sum = 0;
    for (int j = 0; j < w.k; j++) {
      const int8_t q = int8_t(to_whole(to_float(src[j]), inverse));
      to[int64_t(j / 4) * kStepBytes + j % 4] = q;
      sum += q;
    }
    scales.scale[lane + i] = largest / kInt8Most;
    scales.offset[lane + i] = kInt8Offset * sum;
  }
}

template <class Source>
static void load_rows(Context& c, const Weight& w, int row, int rows, const Source* src) {
  auto load = w.dtype == PS_F32 ? load_f32<Source> : w.dtype == PS_BF16 ? load_bf16<Source> : load_int8<Source>;
  const int first = row / kPanel, last = (row + rows - 1) / kPanel;
  c.pool.parallel(last - first + 1, 1, [&](int64_t begin, int64_t end) {
    for (int64_t p = first + begin; p < first + end; p++) {
      const int from = std::max<int>(row, p * kPanel), to = std::min<int>(row + rows, (p + 1) * kPanel);
      load(w, w.data + p * w.panel_bytes, from % kPanel, to - from, src + int64_t(from - row) * w.k);
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
