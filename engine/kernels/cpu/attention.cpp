// Paged causal attention. A thread takes a tile: at most kTile query vectors (rows x heads of a group) of a sequence and
// kv head, so a block of the cache is read once for all of them.
//
// Each vector sees, for every partition of 256 positions: scores of 16 positions at a time (the lanes; k is transposed
// in its block), one accumulator over the head dimension; m = max, l = sum of e^(s - m); o = sum of e^(s - m) v with
// positions ascending. Partitions are merged in ascending order: rule 2 of pagestream.h. None of this depends on which
// other rows share the tile: what a row may not see scores -infinity there and adds zeros.
#include <algorithm>
#include <type_traits>

#include "cache.h"
#include "context.h"
#include "simd.h"

namespace PS_ISA {

constexpr int kTile = 12;  // query vectors of a tile
constexpr int kMaxHead = 512;
/* As many accumulators as there are registers: vectors scored together; vectors x Vecs of v weighed together. */
#if defined(PS_ISA_AVX512)
constexpr int kScored = 12, kWeighed = 6, kWeighedVecs = 4;
#elif defined(PS_ISA_AVX2)
constexpr int kScored = 6, kWeighed = 3, kWeighedVecs = 2;
#else
constexpr int kScored = 3, kWeighed = 3, kWeighedVecs = 1;
#endif
constexpr int kPartition = PS_ATTENTION_PARTITION;

struct Shape {
  int hq, hkv, hd, block_size, window;
  float scale, softcap;
  int group() const { return hq / hkv; }
  int64_t width() const { return int64_t(hq + 2 * hkv) * hd; }
};

/* The blocks of one sequence and kv head. */
template <class T>
struct Blocks {
  static constexpr bool kIsScaled = std::is_same_v<T, int8_t>;
  ps_ptr k_cache, v_cache;
  const int32_t* table;
  int head;
  const Shape& shape;

  Head<T> at(ps_ptr cache, int position) const {
    const int64_t block = table[position / shape.block_size];
    return Head<T>(cache, block * shape.hkv + head, shape.hd, shape.block_size);
  }
  /* k of dimension d at position p: k(p)[d * block_size] */
  const T* k(int position) const { return at(k_cache, position).data + position % shape.block_size; }
  const T* v(int position) const { return at(v_cache, position).data + int64_t(position % shape.block_size) * shape.hd; }
  const float* k_scales(int position) const { return at(k_cache, position).scales + position % shape.block_size; }
  const float* v_scales(int position) const { return at(v_cache, position).scales + position % shape.block_size; }
  /* Positions from here to the end of the block. */
  int left(int position) const { return shape.block_size - position % shape.block_size; }
};

/* What a tile's vectors accumulate. Heads are padded to whole Vecs. */
struct Tile {
  int count;
  const float* q[kTile];
  int first[kTile], last[kTile];  // positions that each may see: [first, last)
  float m[kTile], l[kTile];
  alignas(64) float o[kTile][kMaxHead];
  // of the current partition
  float part_m[kTile], part_l[kTile];
  alignas(64) float scores[kTile][kPartition];  // then weights
  alignas(64) float part_o[kTile][kMaxHead];
};

/* q . k for N vectors and `lanes` positions of one block. */
template <int N, class T>
static void dot_products(const Tile& tile, int v0, const T* k, int stride, int hd, int lanes, Vec (&acc)[N]) {
  for (int v = 0; v < N; v++) acc[v] = zero();
  for (int d = 0; d < hd; d++) {
    const Vec column = load(k + int64_t(d) * stride, lanes);
    for (int v = 0; v < N; v++) acc[v] = fma(set1(tile.q[v0 + v][d]), column, acc[v]);
  }
}

template <int N, class T>
static void score(Tile& tile, int v0, const Blocks<T>& blocks, int start, int begin, int end) {
  const Shape& shape = blocks.shape;
  for (int position = begin, lanes; position < end; position += lanes) {
    lanes = std::min({kLanes, blocks.left(position), end - position});
    // Whole Vecs where the block has them: lanes beyond `end` are overwritten or masked.
    const int readable = std::min(kLanes, blocks.left(position));
    Vec acc[N];
    dot_products<N>(tile, v0, blocks.k(position), shape.block_size, shape.hd, readable, acc);
    for (int v = 0; v < N; v++) {
      Vec s = acc[v] * set1(shape.scale);
      if constexpr (Blocks<T>::kIsScaled) s = s * load(blocks.k_scales(position), readable);
      if (shape.softcap > 0) s = set1(shape.softcap) * tanh(s / set1(shape.softcap));
      store(tile.scores[v0 + v] + position - start, s, lanes);
    }
  }
}

/* Scores to weights e^(s - m), with m and l. Positions outside [first, last) weigh nothing. */
static void soften(Tile& tile, int v, int start, int begin, int end) {
  float* s = tile.scores[v];
  const int from = std::max(tile.first[v], begin) - start, to = std::min(tile.last[v], end) - start;
  const int padded = (end - start + kLanes - 1) / kLanes * kLanes;
  std::fill(s, s + std::max(0, std::min(from, padded)), -INFINITY);
  std::fill(s + std::max(0, std::min(to, padded)), s + padded, -INFINITY);
  tile.part_m[v] = -INFINITY;
  if (from >= to) {
    std::fill(s, s + padded, 0.0f);
    return;
  }
  Vec most = set1(-INFINITY);
  for (int i = 0; i < padded; i += kLanes) most = max(load(s + i), most);
  const float m = max(most);
  Vec total = zero();
  for (int i = 0; i < padded; i += kLanes) {
    const Vec weight = exp(load(s + i) - set1(m));
    store(s + i, weight);
    total = total + weight;
  }
  tile.part_m[v] = m;
  tile.part_l[v] = sum(total);
}

/* Weights times the scales of v, of int8. */
template <class T>
static void scale_weights(Tile& tile, const Blocks<T>& blocks, int start, int begin, int end) {
  for (int position = begin, lanes; position < end; position += lanes) {
    lanes = std::min({kLanes, blocks.left(position), end - position});
    const Vec scales = load(blocks.v_scales(position), lanes);
    for (int v = 0; v < tile.count; v++) {
      float* weights = tile.scores[v] + position - start;
      store(weights, load(weights, lanes) * scales, lanes);
    }
  }
}

/* part_o of N vectors, dimensions [d, d + C Vecs), the last of them `lanes` wide. */
template <int N, int C, class T>
static void weigh(Tile& tile, int v0, const Blocks<T>& blocks, int start, int begin, int end, int d, int lanes) {
  Vec acc[N][C];
  for (int v = 0; v < N; v++)
    for (int c = 0; c < C; c++) acc[v][c] = zero();
  for (int position = begin; position < end;) {
    const T* row = blocks.v(position) + d;
    const int count = std::min(blocks.left(position), end - position);
    for (int i = 0; i < count; i++, position++, row += blocks.shape.hd) {
      Vec value[C];
      for (int c = 0; c < C; c++) value[c] = C == 1 ? load(row, lanes) : load(row + c * kLanes);
      for (int v = 0; v < N; v++) {
        const Vec weight = set1(tile.scores[v0 + v][position - start]);
        for (int c = 0; c < C; c++) acc[v][c] = fma(weight, value[c], acc[v][c]);
      }
    }
  }
  for (int v = 0; v < N; v++)
    for (int c = 0; c < C; c++) store(tile.part_o[v0 + v] + d + c * kLanes, acc[v][c]);
}

/* Rescales what was before and what this partition adds to their common maximum. */
static void merge(Tile& tile, int v, int hd) {
  if (tile.part_m[v] == -INFINITY) return;
  const float m = std::max(tile.m[v], tile.part_m[v]);
  const Vec before = exp(set1(tile.m[v] - m)), now = exp(set1(tile.part_m[v] - m));
  float factors[2][kLanes];
  store(factors[0], before);
  store(factors[1], now);
  tile.l[v] = tile.l[v] * factors[0][0] + tile.part_l[v] * factors[1][0];
  tile.m[v] = m;
  for (int d = 0; d < hd; d += kLanes)
    store(tile.o[v] + d, load(tile.o[v] + d) * before + load(tile.part_o[v] + d) * now);
}

/* step(N, v) for vectors v .. v + N, N a constant: as many as Most at a time, then fewer. */
template <int Most, class Step>
static void in_groups(int begin, int end, const Step& step) {
  for (; begin + Most <= end; begin += Most) step(std::integral_constant<int, Most>(), begin);
  if constexpr (Most > 1) in_groups<Most / 2>(begin, end, step);
}

/* One partition for all vectors. */
template <class T>
static void attend(Tile& tile, const Blocks<T>& blocks, int start, int begin, int end) {
  const int hd = blocks.shape.hd;
  in_groups<kScored>(0, tile.count, [&](auto n, int v) { score<n()>(tile, v, blocks, start, begin, end); });
  for (int v = 0; v < tile.count; v++) soften(tile, v, start, begin, end);
  if constexpr (Blocks<T>::kIsScaled) scale_weights(tile, blocks, start, begin, end);
  in_groups<kWeighed>(0, tile.count, [&](auto n, int v) {
    constexpr int kWidth = kWeighedVecs * kLanes;
    int d = 0;
    for (; d + kWidth <= hd; d += kWidth) weigh<n(), kWeighedVecs>(tile, v, blocks, start, begin, end, d, kLanes);
    for (; d < hd; d += kLanes) weigh<n(), 1>(tile, v, blocks, start, begin, end, d, std::min(kLanes, hd - d));
  });
  for (int v = 0; v < tile.count; v++) merge(tile, v, hd);
}

template <class T>
static void run_tile(Tile& tile, const Blocks<T>& blocks) {
  const int first = *std::min_element(tile.first, tile.first + tile.count);
  const int last = *std::max_element(tile.last, tile.last + tile.count);
  for (int start = first / kPartition * kPartition; start < last; start += kPartition)
    attend(tile, blocks, start, std::max(start, first), std::min(start + kPartition, last));
}

struct Batch {
  float* out;
  const float* qkv;
  ps_ptr k_cache, v_cache;
  const int32_t *query_start, *kv_length, *table;
  int stride;
};

/* Vectors [begin, begin + count) of the (row, head of the group) pairs of one sequence and kv head. */
template <class T>
static void run_item(const Batch& batch, const Shape& shape, int sequence, int head, int begin) {
  const int row0 = batch.query_start[sequence], rows = batch.query_start[sequence + 1] - row0;
  const int group = shape.group(), hd = shape.hd;
  Tile tile;
  tile.count = std::min(kTile, rows * group - begin);
  float* out[kTile];
  for (int v = 0; v < tile.count; v++) {
    const int row = row0 + (begin + v) / group, query = head * group + (begin + v) % group;
    tile.q[v] = batch.qkv + row * shape.width() + int64_t(query) * hd;
    out[v] = batch.out + (int64_t(row) * shape.hq + query) * hd;
    tile.last[v] = batch.kv_length[sequence] - rows + (begin + v) / group + 1;
    tile.first[v] = shape.window > 0 ? std::max(0, tile.last[v] - shape.window) : 0;
    tile.m[v] = -INFINITY;
    tile.l[v] = 0;
    std::fill(tile.o[v], tile.o[v] + (hd + kLanes - 1) / kLanes * kLanes, 0.0f);
  }
  const int32_t* table = batch.table + int64_t(sequence) * batch.stride;
  run_tile(tile, Blocks<T>{batch.k_cache, batch.v_cache, table, head, shape});
  for (int v = 0; v < tile.count; v++)
    for (int d = 0; d < hd; d += kLanes)
      // + 0 makes one zero of both signs: positions that weigh nothing may flip the sign of an underflow.
      store(out[v] + d, load(tile.o[v] + d) / set1(tile.l[v]) + zero(), hd - d);
}

static void check_batch(Context& ctx, const Batch& batch, const Shape& shape, int b, int64_t block_bytes) {
  for (int i = 0; i < b; i++) {
    const int rows = batch.query_start[i + 1] - batch.query_start[i], length = batch.kv_length[i];
    if (rows < 0) throw Error(PS_E_INVALID, "query_start[%d] is below query_start[%d]", i + 1, i);
    if (rows > length) throw Error(PS_E_INVALID, "kv_length[%d] is %d, below its %d query rows", i, length, rows);
    const int used = (length + shape.block_size - 1) / shape.block_size;
    if (used > batch.stride)
      throw Error(PS_E_INVALID, "kv_length[%d] is %d: %d blocks, but table_stride is %d", i, length, used,
                  batch.stride);
    for (int j = 0; j < used; j++) {
      const int block = batch.table[int64_t(i) * batch.stride + j];
      if (block < 0 || !ctx.memory.contains(batch.k_cache, (block + 1) * block_bytes) ||
          !ctx.memory.contains(batch.v_cache, (block + 1) * block_bytes))
        throw Error(PS_E_INVALID, "block_table[%d][%d] is %d, not a block of the cache", i, j, block);
    }
  }
}

void attention(Context& ctx, ps_ptr out, ps_ptr qkv, ps_ptr k_cache, ps_ptr v_cache, ps_ptr query_start,
               ps_ptr kv_length, ps_ptr block_table, int32_t table_stride, int32_t b, int32_t hq, int32_t hkv,
               int32_t hd, int32_t block_size, float scale, float softcap, int32_t window, int32_t dtype,
               int32_t kv_dtype) {
  require_f32(dtype);
  require(b >= 0 && hq > 0 && hkv > 0 && hq % hkv == 0, "b >= 0 and hq is a multiple of hkv");
  require(hd > 0 && hd <= kMaxHead && block_size > 0 && window >= 0, "hd in 1..512, block_size > 0, window >= 0");
  if (kv_dtype != PS_F32 && kv_dtype != PS_BF16 && kv_dtype != PS_F16 && kv_dtype != PS_I8)
    throw Error(PS_E_UNSUPPORTED, "kv_dtype %d; the cache is f32, f16, bf16 or int8", kv_dtype);
  if (kv_dtype == PS_I8) require(hd % 4 == 0, "hd is a multiple of 4 with an int8 cache");
  const Shape shape{hq, hkv, hd, block_size, window, scale, softcap};
  const int32_t* starts = ctx.tensor<int32_t>("query_start", query_start, b + 1);
  const int64_t t = b > 0 ? starts[b] : 0;
  const Batch batch{ctx.tensor<float>("out", out, t * hq * hd),
                    ctx.tensor<float>("qkv", qkv, t * shape.width()),
                    k_cache,
                    v_cache,
                    starts,
                    ctx.tensor<int32_t>("kv_length", kv_length, b),
                    ctx.tensor<int32_t>("block_table", block_table, int64_t(b) * table_stride),
                    table_stride};
  const auto head_bytes = kv_dtype == PS_F32  ? Head<float>::bytes(hd, block_size)
                          : kv_dtype == PS_I8 ? Head<int8_t>::bytes(hd, block_size)
                                              : Head<Half>::bytes(hd, block_size);
  if (ctx.debug) check_batch(ctx, batch, shape, b, hkv * head_bytes);

  // Items are (sequence, kv head, tile); ends[i] is the number of items up to sequence i.
  int64_t* ends = ctx.scratch<int64_t>(b);
  auto tiles = [&](int i) { return ((starts[i + 1] - starts[i]) * int64_t(shape.group()) + kTile - 1) / kTile; };
  for (int i = 0; i < b; i++) ends[i] = (i > 0 ? ends[i - 1] : 0) + hkv * tiles(i);
  auto run = kv_dtype == PS_F32    ? run_item<float>
             : kv_dtype == PS_BF16 ? run_item<Bf16>
             : kv_dtype == PS_I8   ? run_item<int8_t>
                                   : run_item<Half>;
  ctx.pool.parallel(b > 0 ? ends[b - 1] : 0, 1, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; item++) {
      const int i = int(std::upper_bound(ends, ends + b, item) - ends);
      const int64_t within = item - (i > 0 ? ends[i - 1] : 0);
      run(batch, shape, i, int(within / tiles(i)), int(within % tiles(i)) * kTile);
    }
  });
}

}  // namespace PS_ISA
