// y = x W^T + bias. The lanes of a Vec are outputs, so every output has one accumulator, which takes the products with
// k ascending whatever the number of rows. Threads share panels of W (weight.cpp has their layout) and rows, never k.
//
// tile<M, V> computes M rows x V Vecs of outputs with all accumulators in registers. One row (decode) takes many Vecs,
// because a chain of dependent products would otherwise wait for itself; many rows (prefill) take few, whose weights
// then stay in the first-level cache for all rows of a block.
#include <algorithm>
#include <utility>

#include "context.h"
#include "simd.h"

namespace PS_ISA {

#if defined(PS_ISA_AVX512)
constexpr int kMaxRows = 12, kTileVecs = 2, kRowVecs = 8;  // 32 registers
#elif defined(PS_ISA_AVX2)
constexpr int kMaxRows = 6, kTileVecs = 1, kRowVecs = 4;  // 16 registers, two to a Vec
#else
constexpr int kMaxRows = 4, kTileVecs = 1, kRowVecs = 1;
#endif
constexpr int kPanelVecs = kPanel / kLanes;
static_assert(kPanelVecs % kTileVecs == 0);
/* Rows of x that stay in the second-level cache while the panels pass. */
constexpr int kRowBlock = 120;

struct Job {
  const Weight& w;
  const float* x;
  int64_t ldx;
  float* y;
  int64_t ldy;
  const float* bias;
  int depth;  // k, rounded up to the step of the format

  int vecs() const { return (w.n + kLanes - 1) / kLanes; }
};

/* How a format keeps the weights of 16 outputs for one k. `base` is those of k = 0. */
struct F32 {
  static constexpr int kStep = 1;
  static constexpr int kVecBytes = kLanes * 4;
  static Vec weights(const char* base, int64_t k, int) {
    return load(reinterpret_cast<const float*>(base) + k * kPanel);
  }
  static Vec multiply_add(Vec w, Vec x, Vec acc) { return fma(w, x, acc); }
};

/* Two neighbouring k lie together; part says which. */
struct BF16 {
  static constexpr int kStep = 2;
  static constexpr int kVecBytes = kLanes * 4;
  static Vec weights(const char* base, int64_t k, int part) {
    const Bf16* pairs = reinterpret_cast<const Bf16*>(base) + k * kPanel;
    return part == 0 ? load_even(pairs) : load_odd(pairs);
  }
  static Vec multiply_add(Vec w, Vec x, Vec acc) { return fma_of_bf16(w, x, acc); }
};

/* Rows [row, row + M) of y, Vecs [first, first + V) of its columns. */
template <class Format, int M, int V>
static void tile(const Job& job, int row, int first) {
  const char* base[V];
  for (int v = 0; v < V; v++)
    base[v] = job.w.panel((first + v) / kPanelVecs) + (first + v) % kPanelVecs * Format::kVecBytes;
  const float* x = job.x + row * job.ldx;
  Vec acc[M][V];
  for (int m = 0; m < M; m++)
    for (int v = 0; v < V; v++) acc[m][v] = zero();

  for (int k = 0; k < job.depth; k += Format::kStep)
    for (int part = 0; part < Format::kStep; part++) {
      Vec weights[V];
      for (int v = 0; v < V; v++) weights[v] = Format::weights(base[v], k, part);
      for (int m = 0; m < M; m++) {
        const Vec value = set1(x[m * job.ldx + k + part]);
        for (int v = 0; v < V; v++) acc[m][v] = Format::multiply_add(weights[v], value, acc[m][v]);
      }
    }

  for (int v = 0; v < V; v++) {
    const int column = (first + v) * kLanes, lanes = job.w.n - column;
    if (lanes <= 0) break;
    const Vec bias = job.bias ? load(job.bias + column, lanes) : zero();
    for (int m = 0; m < M; m++)
      store(job.y + (row + m) * job.ldy + column, job.bias ? acc[m][v] + bias : acc[m][v], lanes);
  }
}

template <class Format, int... M>
static void tile_of(int rows, std::integer_sequence<int, M...>, const Job& job, int row, int first) {
  static constexpr void (*tiles[])(const Job&, int, int) = {tile<Format, M + 1, kTileVecs>...};
  tiles[rows - 1](job, row, first);
}

/* Rows [begin, end) of y, panels [first, last). */
template <class Format>
static void compute(const Job& job, int begin, int end, int first, int last) {
  int vec = first * kPanelVecs;
  const int stop = std::min(last * kPanelVecs, job.vecs());
  if (end - begin == 1)
    for (; vec + kRowVecs <= stop; vec += kRowVecs) tile<Format, 1, kRowVecs>(job, begin, vec);
  for (; vec < stop; vec += kTileVecs)
    for (int row = begin; row < end; row += kMaxRows)
      tile_of<Format>(std::min(kMaxRows, end - row), std::make_integer_sequence<int, kMaxRows>(), job, row, vec);
}

/* x as the bf16 kernels read it: rounded, and filled up to an even k. */
static void round_row(const float* x, int k, float* out) {
  for (int i = 0; i < k; i++) out[i] = to_float(from_float<Bf16>(x[i]));
  if (k % 2) out[k] = 0;
}

void linear(Context& ctx, ps_ptr y, ps_ptr x, ps_weight handle, ps_ptr bias, int32_t t, int64_t ldx, int64_t ldy,
            int32_t dtype) {
  require_f32(dtype);
  const Weight& w = weight(handle);
  require(t >= 0 && ldx >= w.k && ldy >= w.n, "t >= 0, ldx >= k and ldy >= n");
  if (t == 0) return;
  const float* input = ctx.tensor<float>("x", x, (t - 1) * ldx + w.k);
  float* output = ctx.tensor<float>("y", y, (t - 1) * ldy + w.n);
  Job job{w, input, ldx, output, ldy, bias ? ctx.tensor<float>("bias", bias, w.n) : nullptr, w.k};
  if (w.dtype == PS_BF16) {
    job.ldx = job.depth = w.k + w.k % 2;
    float* rounded = ctx.scratch<float>(t * job.ldx);
    job.x = rounded;
    ctx.pool.parallel(t, 16, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; row++) round_row(input + row * ldx, w.k, rounded + row * job.ldx);
    });
  }

  // An item is a block of rows times a group of panels; a thread's share of one block is a few groups, so that threads
  // end together and each runs through memory in order.
  const int blocks = (t + kRowBlock - 1) / kRowBlock;
  const int shares = 4 * ctx.pool.threads(), least = std::max(1, kRowVecs / kPanelVecs);
  const int panels = w.panels(), group = std::max(least, panels / shares / least * least);
  const int groups = (panels + group - 1) / group;
  auto run = w.dtype == PS_F32 ? compute<F32> : compute<BF16>;
  ctx.pool.parallel(int64_t(blocks) * groups, 1, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; item++) {
      const int row = int(item / groups) * kRowBlock, first = int(item % groups) * group;
      run(job, row, std::min(t, row + kRowBlock), first, std::min(panels, first + group));
    }
  });
}

}  // namespace PS_ISA
