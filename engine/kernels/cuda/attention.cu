// Paged causal attention: the plan, the checks, the kernel in f32 for what the tensor cores do not take, and the join of
// partitions that were computed apart. attention.h says how work is cut.
#include "attention.h"

#include <algorithm>

#include "reduce.h"

namespace PS_ISA {

constexpr int kWarps = 4, kMaxHead = 512;
constexpr int64_t kPartialBytes = 32 << 20;

/* One block: items and partial results of every sequence, as running sums. */
__global__ void make_plan(Batch batch, Shape shape, Plan plan) {
  int64_t partials = 0, small_items = 0, large_items = 0, total;
  for (int begin = 0; begin < shape.b; begin += blockDim.x) {
    const int i = begin + threadIdx.x;
    const Sequence own(batch, shape, min(i, shape.b - 1));
    const bool exists = i < shape.b && own.rows > 0, small = own.vectors <= kSmallTile;
    const int64_t wanted = exists && small && own.partitions > 1 ? int64_t(shape.hkv) * own.vectors * own.partitions : 0;
    const int64_t end = partials + block_scan(wanted, total);
    partials += total;
    const bool is_cut = wanted > 0 && end <= plan.capacity;
    const int tiles = small ? (is_cut ? own.partitions : 1) : (own.vectors + plan.large_tile - 1) / plan.large_tile;
    const int64_t items = exists ? int64_t(shape.hkv) * tiles : 0;
    const int64_t small_end = small_items + block_scan(small ? items : 0, total);
    small_items += total;
    const int64_t large_end = large_items + block_scan(small ? 0 : items, total);
    large_items += total;
    if (i < shape.b) {
      plan.partial[i] = is_cut ? end - wanted : -1;
      plan.ends[i] = small_end;
      plan.ends[shape.b + i] = large_end;
    }
  }
}

/* A warp's share of the block's shared memory. */
struct Row {
  float q[kMaxHead], weights[kPartition];
};

/* Scores of positions [begin, end), begin at or after `start`, to weights with their maximum; returns that. */
template <class T, class Kv>
__device__ float weigh(Row& row, const Batch& batch, const Shape& shape, const int32_t* table, int head, int start, int begin,
                       int end) {
  const int lane = threadIdx.x % 32;
  const Kv* cache = static_cast<const Kv*>(batch.k_cache);
  float most = -INFINITY;
  for (int i = lane; i < kPartition; i += 32) {
    const int position = start + i;
    float score = -INFINITY;
    if (position >= begin && position < end) {
      const int64_t block = table[position / shape.block_size];
      const Kv* k = cache + ((block * shape.hkv + head) * shape.block_size + position % shape.block_size) * shape.hd;
      float dot = 0;
      for (int d = 0; d < shape.hd; d++) dot = fmaf(row.q[d], to_float(k[d]), dot);
      score = score_of(shape, dot);
    }
    row.weights[i] = score;
    most = fmaxf(most, score);
  }
  return warp_max(most);
}

/* A warp takes every fourth vector of the item's tile; its lanes are positions for scores, then dimensions. */
template <class T, class Kv, int DIMS>
__global__ void attend(Batch batch, Shape shape, Plan plan, bool small) {
  __shared__ Row rows[kWarps];
  Row& own = rows[threadIdx.x / 32];
  const int lane = threadIdx.x % 32;
  const int64_t items = plan.ends[small ? shape.b - 1 : 2 * shape.b - 1];
  for (int64_t number = blockIdx.x; number < items; number += gridDim.x) {
    const Item item(batch, shape, plan, small, number);
    const Sequence sequence(batch, shape, item.sequence);
    const int32_t* table = batch.table + int64_t(item.sequence) * batch.stride;
    const int last_vector = min(item.vector + kSmallTile, sequence.vectors);
    for (int vector = item.vector + threadIdx.x / 32; vector < last_vector; vector += kWarps) {
      const int row = sequence.row0 + vector / shape.group(), query = item.head * shape.group() + vector % shape.group();
      const T* q = static_cast<const T*>(batch.qkv) + row * shape.width() + int64_t(query) * shape.hd;
      __syncwarp();
      for (int d = lane; d < shape.hd; d += 32) own.q[d] = to_float(q[d]);
      __syncwarp();
      const int end = sequence.end_of(shape, vector), first = Sequence::first_seen(shape, end);
      const int from = item.partition < 0 ? first / kPartition : item.partition;
      const int to = item.partition < 0 ? (end + kPartition - 1) / kPartition : item.partition + 1;
      float m = -INFINITY, l = 0, o[DIMS] = {};
      for (int partition = from; partition < to; partition++) {
        const int start = partition * kPartition, begin = max(start, first), stop = min(start + kPartition, end);
        const float part_m = weigh<T, Kv>(own, batch, shape, table, item.head, start, begin, stop);
        if (part_m == -INFINITY) continue;
        float part_l = 0, part_o[DIMS] = {};
        for (int i = lane; i < kPartition; i += 32) part_l += own.weights[i] = exp2f(own.weights[i] - part_m);
        part_l = warp_sum(part_l);
        __syncwarp();
        for (int position = begin; position < stop; position++) {
          const int64_t block = table[position / shape.block_size];
          const int64_t at = ((block * shape.hkv + item.head) * shape.block_size + position % shape.block_size) * shape.hd;
          const Kv* v = static_cast<const Kv*>(batch.v_cache) + at;
          const float weight = own.weights[position - start];
#pragma unroll
          for (int j = 0; j < DIMS; j++)
            if (lane + 32 * j < shape.hd) part_o[j] = fmaf(weight, to_float(v[lane + 32 * j]), part_o[j]);
        }
        __syncwarp();
        const Merge merge(m, part_m);
        m = merge.m;
        l = merge(l, part_l);
        for (int j = 0; j < DIMS; j++) o[j] = merge(o[j], part_o[j]);
      }
      const int64_t partial = item.partial + int64_t(vector) * sequence.partitions;
      if (item.partition >= 0 && lane == 0) plan.ml[partial] = {m, l};
      for (int j = 0; j < DIMS; j++) {
        const int d = lane + 32 * j;
        if (d >= shape.hd) break;
        if (item.partition >= 0) plan.o[partial * shape.hd + d] = o[j];
        else static_cast<T*>(batch.out)[(int64_t(row) * shape.hq + query) * shape.hd + d] = from_float<T>(o[j] / l + 0.0f);
      }
    }
  }
}

/* The partitions of sequences that were cut, merged in ascending order. A block per sequence and kv head. */
template <class T>
__global__ void join(Batch batch, Shape shape, Plan plan) {
  const int64_t begin = plan.partial[blockIdx.x];
  if (begin < 0) return;
  const Sequence own(batch, shape, blockIdx.x);
  const int head = blockIdx.y;
  for (int i = threadIdx.x; i < own.vectors * shape.hd; i += blockDim.x) {
    const int vector = i / shape.hd, d = i % shape.hd;
    const int64_t partial = begin + (int64_t(head) * own.vectors + vector) * own.partitions;
    float m = -INFINITY, l = 0, o = 0;
    for (int p = 0; p < own.partitions; p++) {
      const float2 ml = plan.ml[partial + p];
      if (ml.x == -INFINITY) continue;
      const Merge merge(m, ml.x);
      m = merge.m;
      l = merge(l, ml.y);
      o = merge(o, plan.o[(partial + p) * shape.hd + d]);
    }
    const int64_t row = own.row0 + vector / shape.group(), query = head * shape.group() + vector % shape.group();
    // + 0 makes one zero of both signs: positions that weigh nothing may flip the sign of an underflow.
    static_cast<T*>(batch.out)[(row * shape.hq + query) * shape.hd + d] = from_float<T>(o / l + 0.0f);
  }
}

static void check_batch(Context& ctx, const Batch& batch, const Shape& shape, int64_t block_bytes) {
  const std::vector<int32_t> starts = ctx.fetch(batch.query_start, shape.b + 1), lengths = ctx.fetch(batch.kv_length, shape.b);
  const std::vector<int32_t> table = ctx.fetch(batch.table, int64_t(shape.b) * batch.stride);
  for (int i = 0; i < shape.b; i++) {
    const int rows = starts[i + 1] - starts[i], length = lengths[i];
    if (rows < 0) throw Error(PS_E_INVALID, "query_start[%d] is below query_start[%d]", i + 1, i);
    if (rows > length) throw Error(PS_E_INVALID, "kv_length[%d] is %d, below its %d query rows", i, length, rows);
    const int used = int(ceil_div(length, shape.block_size));
    if (used > batch.stride)
      throw Error(PS_E_INVALID, "kv_length[%d] is %d: %d blocks, but table_stride is %d", i, length, used, batch.stride);
    for (int j = 0; j < used; j++) {
      const int block = table[int64_t(i) * batch.stride + j];
      if (block < 0 || !ctx.contains(ps_ptr(batch.k_cache), (block + 1) * block_bytes) ||
          !ctx.contains(ps_ptr(batch.v_cache), (block + 1) * block_bytes))
        throw Error(PS_E_INVALID, "block_table[%d][%d] is %d, not a block of the cache", i, j, block);
    }
  }
}

/* Room for the plan and for as many partial results as the batch may have, within a limit. */
static Plan plan_of(Context& ctx, const Batch& batch, const Shape& shape, int large_tile) {
  const int64_t partitions = ceil_div(int64_t(batch.stride) * shape.block_size, kPartition);
  const int64_t limit = kPartialBytes / ((shape.hd + 2) * 4);
  Plan plan{};
  plan.large_tile = large_tile;
  plan.capacity = std::min(limit, shape.b * shape.hkv * kSmallTile * partitions);
  const int64_t heads = 3 * shape.b * sizeof(int64_t), vectors = plan.capacity * (sizeof(float2) + shape.hd * sizeof(float));
  char* memory = ctx.scratch<char>(heads + vectors);
  plan.ends = reinterpret_cast<int64_t*>(memory);
  plan.partial = plan.ends + 2 * shape.b;
  plan.ml = reinterpret_cast<float2*>(memory + heads);
  plan.o = reinterpret_cast<float*>(plan.ml + plan.capacity);
  launch(ctx, make_plan, 1, 256, 0, batch, shape, plan);
  return plan;
}

template <class T, class Kv>
static void attend_f32(Context& ctx, const Batch& batch, const Shape& shape, const Plan& plan) {
  auto kernel = shape.hd <= 128 ? attend<T, Kv, 4> : attend<T, Kv, 16>;
  for (bool small : {true, false}) launch(ctx, kernel, 4 * ctx.processors, 32 * kWarps, 0, batch, shape, plan, small);
}

void attention(Context& ctx, ps_ptr out, ps_ptr qkv, ps_ptr k_cache, ps_ptr v_cache, ps_ptr query_start,
               ps_ptr kv_length, ps_ptr block_table, int32_t table_stride, int32_t b, int32_t hq, int32_t hkv,
               int32_t hd, int32_t block_size, float scale, float softcap, int32_t window, int32_t dtype,
               int32_t kv_dtype) {
  require(b >= 0 && hq > 0 && hkv > 0 && hq % hkv == 0, "b >= 0 and hq is a multiple of hkv");
  require(hd > 0 && hd <= kMaxHead && block_size > 0 && window >= 0, "hd in 1..512, block_size > 0, window >= 0");
  if (b == 0) return;
  const Shape shape{b, hq, hkv, hd, block_size, window, scale, softcap};
  const Batch batch{(void*)out, (const void*)qkv, (const void*)k_cache, (const void*)v_cache,
                    ctx.tensor<int32_t>("query_start", query_start, b + 1), ctx.tensor<int32_t>("kv_length", kv_length, b),
                    ctx.tensor<int32_t>("block_table", block_table, int64_t(b) * table_stride), table_stride};
  with_activations(dtype, [&](auto type) {
    with_cache(kv_dtype, [&](auto kv_type) {
      using T = decltype(type);
      using Kv = decltype(kv_type);
      if (ctx.debug) {
        const int64_t t = ctx.fetch(batch.query_start, b + 1)[b];
        ctx.tensor<T>("out", out, t * hq * hd);
        ctx.tensor<T>("qkv", qkv, t * shape.width());
        check_batch(ctx, batch, shape, int64_t(hkv) * hd * block_size * sizeof(Kv));
      }
      const bool on_tensor_cores = fits_mma(ctx, batch, shape, dtype, kv_dtype);
      const Plan plan = plan_of(ctx, batch, shape, on_tensor_cores ? kMmaTile : kSmallTile);
      on_tensor_cores ? attend_mma(ctx, batch, shape, plan) : attend_f32<T, Kv>(ctx, batch, shape, plan);
      launch(ctx, join<T>, dim3(b, hkv), 128, 0, batch, shape, plan);
    });
  });
}

}  // namespace PS_ISA
