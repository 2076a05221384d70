// y = x W^T + bias. The lanes of a Vec are outputs, so every output has one accumulator, which takes the products with k
// ascending whatever the number of rows; threads share panels of W (weight.cpp has their layout) and rows of x, never k.
//
// tile<M, P> computes M rows x P panels with all accumulators in registers. One row (decode) takes several panels at
// once, because a chain of dependent products would otherwise wait for itself; many rows (prefill) take one panel, whose
// weights then stay in the first-level cache for all rows of a block.
#include <algorithm>
#include <utility>

#include "context.h"
#include "simd.h"

namespace PS_ISA {

constexpr int kVecs = kPanel / kLanes;  // of one panel

#if defined(PS_ISA_AVX512)
constexpr int kMaxRows = 12, kRowPanels = 4;  // 32 registers
#elif defined(PS_ISA_AVX2)
constexpr int kMaxRows = 2, kRowPanels = 2;  // 16 registers, two to a Vec
#else
constexpr int kMaxRows = 4, kRowPanels = 1;
#endif
/* Rows of x that stay in the second-level cache while the panels pass. */
constexpr int kRowBlock = 120;

struct Job {
  const Weight& w;
  const void* x;  // f32: rows of floats; bf16: rows of XPair
  int64_t ldx;    // in floats or XPairs
  float* y;
  int64_t ldy;
  const float* bias;
  int panels;  // of W
};

struct F32 {
  static int steps(const Weight& w) { return w.k; }
  template <int M, int P>
  static void step(Vec (&acc)[M][P * kVecs], const char* const* panel, const void* x, int64_t ldx, int k) {
    Vec weights[P * kVecs];
    for (int v = 0; v < P * kVecs; v++)
      weights[v] = load(reinterpret_cast<const float*>(panel[v / kVecs]) + int64_t(k) * kPanel + v % kVecs * kLanes);
    for (int m = 0; m < M; m++) {
      const Vec value = set1(static_cast<const float*>(x)[m * ldx + k]);
      for (int v = 0; v < P * kVecs; v++) acc[m][v] = fma(weights[v], value, acc[m][v]);
    }
  }
};

struct BF16 {
  static int steps(const Weight& w) { return (w.k + 1) / 2; }
  template <int M, int P>
  static void step(Vec (&acc)[M][P * kVecs], const char* const* panel, const void* x, int64_t ldx, int k) {
    WeightPair weights[P * kVecs];
    for (int v = 0; v < P * kVecs; v++)
      weights[v] = load_pair(reinterpret_cast<const Bf16*>(panel[v / kVecs]) + 2 * (int64_t(k) * kPanel + v % kVecs * kLanes));
    for (int m = 0; m < M; m++) {
      const XPair value = static_cast<const XPair*>(x)[m * ldx + k];
      for (int v = 0; v < P * kVecs; v++) acc[m][v] = dot(acc[m][v], weights[v], value);
    }
  }
};

/* Rows [row, row + M) of y, panels [first, first + P). */
template <class Format, int M, int P>
static void tile(const Job& job, int row, int first) {
  const char* panel[P];
  for (int p = 0; p < P; p++) panel[p] = job.w.panel(first + p);
  const size_t element = job.w.dtype == PS_F32 ? sizeof(float) : sizeof(XPair);
  const void* x = static_cast<const char*>(job.x) + row * job.ldx * element;
  Vec acc[M][P * kVecs];
  for (int m = 0; m < M; m++)
    for (int v = 0; v < P * kVecs; v++) acc[m][v] = zero();
  const int steps = Format::steps(job.w);
  for (int k = 0; k < steps; k++) Format::template step<M, P>(acc, panel, x, job.ldx, k);

  for (int v = 0; v < P * kVecs; v++) {
    const int column = first * kPanel + v * kLanes, lanes = job.w.n - column;
    if (lanes <= 0) break;
    const Vec bias = job.bias ? load(job.bias + column, lanes) : zero();
    for (int m = 0; m < M; m++)
      store(job.y + (row + m) * job.ldy + column, job.bias ? acc[m][v] + bias : acc[m][v], lanes);
  }
}

using Tile = void (*)(const Job&, int row, int first);
template <class Format, int P, int... M>
static Tile tile_of(int rows, std::integer_sequence<int, M...>) {
  static constexpr Tile tiles[] = {tile<Format, M + 1, P>...};
  return tiles[rows - 1];
}

/* Rows [begin, end) of y, panels [first, last). */
template <class Format>
static void compute(const Job& job, int begin, int end, int first, int last) {
  int p = first;
  if (end - begin == 1)
    for (; p + kRowPanels <= last; p += kRowPanels) tile<Format, 1, kRowPanels>(job, begin, p);
  for (; p < last; p++)
    for (int row = begin; row < end; row += kMaxRows) {
      const int rows = std::min(kMaxRows, end - row);
      tile_of<Format, 1>(rows, std::make_integer_sequence<int, kMaxRows>())(job, row, p);
    }
}

/* x as the bf16 kernels read it: rounded, in pairs. */
static void round_pairs(const float* x, int k, XPair* out) {
  auto rounded = [](float value) { return to_float(from_float<Bf16>(value)); };
  for (int i = 0; i < k; i += 2) out[i / 2] = {rounded(x[i]), i + 1 < k ? rounded(x[i + 1]) : 0};
}

void linear(Context& ctx, ps_ptr y, ps_ptr x, ps_weight handle, ps_ptr bias, int32_t t, int64_t ldx, int64_t ldy,
            int32_t dtype) {
  require_f32(dtype);
  const Weight& w = weight(handle);
  require(t >= 0 && ldx >= w.k && ldy >= w.n, "t >= 0, ldx >= k and ldy >= n");
  if (t == 0) return;
  const float* input = ctx.tensor<float>("x", x, (t - 1) * ldx + w.k);
  float* output = ctx.tensor<float>("y", y, (t - 1) * ldy + w.n);
  Job job{w, input, ldx, output, ldy, bias ? ctx.tensor<float>("bias", bias, w.n) : nullptr, w.panels()};
  if (w.dtype == PS_BF16) {
    job.ldx = BF16::steps(w);
    XPair* pairs = ctx.scratch<XPair>(t * job.ldx);
    job.x = pairs;
    ctx.pool.parallel(t, 16, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; row++) round_pairs(input + row * ldx, w.k, pairs + row * job.ldx);
    });
  }

  // An item is a block of rows times a group of panels; a thread's share of one block is a few groups, so that threads
  // end together and each runs through memory in order.
  const int blocks = (t + kRowBlock - 1) / kRowBlock;
  const int shares = 4 * ctx.pool.threads();
  const int group = std::max(kRowPanels, (job.panels / shares + kRowPanels - 1) / kRowPanels * kRowPanels);
  const int groups = (job.panels + group - 1) / group;
  auto run = w.dtype == PS_F32 ? compute<F32> : compute<BF16>;
  ctx.pool.parallel(int64_t(blocks) * groups, 1, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; item++) {
      const int row = int(item / groups) * kRowBlock, first = int(item % groups) * group;
      run(job, row, std::min(t, row + kRowBlock), first, std::min(job.panels, first + group));
    }
  });
}

}  // namespace PS_ISA
