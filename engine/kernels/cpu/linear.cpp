// y = x W^T + bias. The lanes of a Vec are outputs, so every output has one accumulator, which takes the products with
// k ascending whatever the number of rows. Threads share panels of W (weight.cpp has their layout) and rows, never k.
//
// tile<M, V> computes M rows x V Vecs of outputs with all accumulators in registers. One row (decode) takes many Vecs,
// because a chain of dependent products would otherwise wait for itself; many rows (prefill) take few, whose weights
// then stay in the first-level cache for all rows of a block. With AMX, linear_amx.h does the work for bf16 and int8.
#include "linear.h"

#include <algorithm>
#include <utility>

#if defined(__AMX_TILE__)
#include "linear_amx.h"
#endif

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
#if defined(__AMX_TILE__)
constexpr int kRowBlock = 128;
#else
constexpr int kRowBlock = 120;
#endif

/* Rows [row, row + M) of y, Vecs [first, first + V) of its columns. */
template <class Format, int M, int V>
static void tile(const Linear& job, int row, int first) {
  const char* base[V];
  for (int v = 0; v < V; v++)
    base[v] = job.w.panel((first + v) / kPanelVecs) + (first + v) % kPanelVecs * (kStepBytes / kPanelVecs);
  constexpr int kRows = Format::kRows;
  const char* x = job.x + row * kRows * job.row_bytes;
  typename Format::Sum sums[M][V][kRows];
  for (int m = 0; m < M; m++)
    for (int v = 0; v < V; v++)
      for (auto& sum : sums[m][v]) sum = Format::none();

  for (int64_t step = 0; step < job.w.steps; step++)
    for (int part = 0; part < Format::kParts; part++, x += 4) {
      decltype(Format::weights(nullptr, 0)) weights[V];
      for (int v = 0; v < V; v++) weights[v] = Format::weights(base[v] + step * kStepBytes, part);
      for (int m = 0; m < M * kRows; m++) {
        const auto value = Format::value(x + m * job.row_bytes);
        for (int v = 0; v < V; v++) {
          auto& sum = sums[m / kRows][v][m % kRows];
          sum = Format::multiply_add(weights[v], value, sum);
        }
      }
    }

  for (int v = 0; v < V && first + v < job.vecs(); v++)
    for (int m = 0; m < M; m++) job.finish(sums[m][v], row + m, first + v);
}

template <class Format, int... M>
static void tile_of(int rows, std::integer_sequence<int, M...>, const Linear& job, int row, int first) {
  static constexpr void (*tiles[])(const Linear&, int, int) = {tile<Format, M + 1, kTileVecs>...};
  tiles[rows - 1](job, row, first);
}

/* Rows [begin, end) of y, panels [first, last). */
template <class Format>
static void compute(const Linear& job, int begin, int end, int first, int last) {
  int vec = first * kPanelVecs;
  const int stop = std::min(last * kPanelVecs, job.vecs());
  if (end - begin == 1)
    for (; vec + kRowVecs <= stop; vec += kRowVecs) tile<Format, 1, kRowVecs>(job, begin, vec);
  constexpr int kMost = std::max(1, kMaxRows / Format::kRows);
  for (; vec < stop; vec += kTileVecs)
    for (int row = begin; row < end; row += kMost)
      tile_of<Format>(std::min(kMost, end - row), std::make_integer_sequence<int, kMost>(), job, row, vec);
}

/* x rounded to bf16, as BF16 takes it. */
static void round_row(const float* x, int k, int steps, char* out) {
  if constexpr (BF16::kParts == 1) {
    Bf16* to = reinterpret_cast<Bf16*>(out);
    for (int i = 0; i < k; i++) to[i] = from_float<Bf16>(x[i]);
    std::fill(to + k, to + 2 * steps, Bf16{0});
  } else {
    float* to = reinterpret_cast<float*>(out);
    for (int i = 0; i < k; i++) to[i] = to_float(from_float<Bf16>(x[i]));
    std::fill(to + k, to + 2 * steps, 0.0f);
  }
}

/* Rewrites x as the format of the weights takes it, in scratch memory. */
static void prepare(Context& ctx, Linear& job, const float* x, int t, int64_t ldx) {
  const Weight& w = job.w;
  job.row_bytes = int64_t(w.steps) * 4 * (w.dtype == PS_I8 ? Int8::kParts : BF16::kParts);
  const int64_t bytes = job.row_bytes * (w.dtype == PS_I8 ? Int8::kRows : BF16::kRows);
  char* rows = ctx.scratch<char>(t * (bytes + sizeof(float)));
  float* scales = reinterpret_cast<float*>(rows + t * bytes);
  ctx.pool.parallel(t, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      char* out = rows + i * bytes;
      if (w.dtype == PS_I8)
        scales[i] = quantise(x + i * ldx, w.k, w.steps, out);
      else
        round_row(x + i * ldx, w.k, w.steps, out);
    }
  });
  job.x = rows;
  job.scales = scales;
}

void linear(Context& ctx, ps_ptr y, ps_ptr x, ps_weight handle, ps_ptr bias, int32_t t, int64_t ldx, int64_t ldy,
            int32_t dtype) {
  require_f32(dtype);
  const Weight& w = weight(handle);
  require(t >= 0 && ldx >= w.k && ldy >= w.n, "t >= 0, ldx >= k and ldy >= n");
  if (t == 0) return;
  const float* input = ctx.tensor<float>("x", x, (t - 1) * ldx + w.k);
  float* output = ctx.tensor<float>("y", y, (t - 1) * ldy + w.n);
  Linear job{w, (const char*)input, ldx * 4, nullptr, output, ldy, bias ? ctx.tensor<float>("bias", bias, w.n) : nullptr};
  if (w.dtype != PS_F32) prepare(ctx, job, input, t, ldx);

#if defined(__AMX_TILE__)
  // One row by vpdpbusd has the bits of tiles and is a little faster: 31 against 28 GB/s.
  auto run = w.dtype == PS_F32    ? compute<F32>
             : w.dtype == PS_BF16 ? compute_by_tiles<BF16>
             : t == 1             ? compute<Int8>
                                  : compute_by_tiles<Int8>;
#else
  auto run = w.dtype == PS_F32 ? compute<F32> : w.dtype == PS_BF16 ? compute<BF16> : compute<Int8>;
#endif
  // An item is a block of rows times a group of panels; a thread's share of one block is a few groups, so that threads
  // end together and each runs through memory in order.
  const int blocks = (t + kRowBlock - 1) / kRowBlock;
  const int shares = 4 * ctx.pool.threads(), least = std::max(1, kRowVecs / kPanelVecs);
  const int panels = w.panels(), group = std::max(least, panels / shares / least * least);
  const int groups = (panels + group - 1) / group;
  ctx.pool.parallel(int64_t(blocks) * groups, 1, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; item++) {
      const int row = int(item / groups) * kRowBlock, first = int(item % groups) * group;
      run(job, row, std::min(t, row + kRowBlock), first, std::min(panels, first + group));
    }
  });
}

}  // namespace PS_ISA
