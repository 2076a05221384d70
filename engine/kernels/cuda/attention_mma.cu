// Attention on tensor cores for bf16 rows and a bf16 cache, in the manner of FlashAttention-2 (arXiv 2307.08691): a warp
// keeps 16 query vectors, and the block's warps share chunks of 64 positions of k and v, which arrive by asynchronous
// copies one chunk ahead. Chunks begin at multiples of 64, so what a vector computes does not depend on its tile; a
// chunk of which it may see nothing changes no bit. The sum of the weights, rounded to bf16, is one more column of v: ones.
//
// Decode uses blocks of one warp (16 vectors are all heads of a group), prefill blocks of four; the code is the same.
#include "attention.h"
#include "mma.h"

namespace PS_ISA {

constexpr int kChunk = 64, kStages = 2;
constexpr uint32_t kOnes = 0x3f803f80;  // two bf16

template <int HD>
struct Stage {
  Bf16 k[kChunk * HD], v[kChunk * HD];
};

template <int HD, int WARPS>
struct Shared {
  Stage<HD> stages[kStages];
  float total[HD / 2][32 * WARPS];  // o of the partitions before, one column per thread
};

/* What a lane knows of its two vectors, rows lane / 4 and lane / 4 + 8 of its warp's 16. */
struct Rows {
  int first[2], end[2];  // positions seen: [first, end); both 0 for none
  int64_t query[2];      // index of (row, head)
  int vector[2];
};

/* Starts copying positions [64 chunk, 64 chunk + 64) of one kv head; those from `end` on are zeros. */
template <int HD, int WARPS>
__device__ void fetch(Stage<HD>& stage, const Batch& batch, const Shape& shape, const int32_t* table, int head, int chunk, int end) {
  constexpr int kPieces = HD / 8;
  for (int i = threadIdx.x; i < kChunk * kPieces; i += 32 * WARPS) {
    const int row = i / kPieces, piece = i % kPieces, position = chunk * kChunk + row;
    const bool inside = position < end && piece * 8 < shape.hd;
    int64_t at = 0;
    if (inside) {
      const int64_t block = table[position / shape.block_size];
      at = ((block * shape.hkv + head) * shape.block_size + position % shape.block_size) * shape.hd + piece * 8;
    }
    copy_async(stage.k + swizzled<kPieces>(row, piece), static_cast<const Bf16*>(batch.k_cache) + at, inside);
    copy_async(stage.v + swizzled<kPieces>(row, piece), static_cast<const Bf16*>(batch.v_cache) + at, inside);
  }
}

/* The lane's part of its rows of q, as left operands. */
template <int HD>
__device__ void load_queries(uint32_t (&q)[HD / 16][4], const Rows& rows, const Batch& batch, const Shape& shape) {
  const int column = threadIdx.x % 4 * 2;
#pragma unroll
  for (int k = 0; k < HD / 16; k++)
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int d = 16 * k + column + i / 2 * 8;
      const bool inside = rows.end[i % 2] > 0 && d < shape.hd;
      const int64_t row = rows.query[i % 2] / shape.hq, head = rows.query[i % 2] % shape.hq;
      const Bf16* from = static_cast<const Bf16*>(batch.qkv) + row * shape.width() + head * shape.hd + d;
      q[k][i] = inside ? *reinterpret_cast<const uint32_t*>(from) : 0;
    }
}

/* One chunk for a warp's vectors: scores, weights, and what they add to (m, l, o) of the partition. */
template <int HD>
__device__ void attend_chunk(const Stage<HD>& stage, const uint32_t (&q)[HD / 16][4], const Rows& rows, const Shape& shape,
                             int chunk, float (&m)[2], float (&l)[4], float (&o)[HD / 8][4]) {
  constexpr int kPieces = HD / 8;
  const int lane = threadIdx.x % 32;
  float s[kChunk / 8][4] = {};
#pragma unroll
  for (int k = 0; k < HD / 32; k++)
#pragma unroll
    for (int n = 0; n < kChunk / 8; n++) {
      uint32_t b[4];
      load_matrices<false>(b, stage.k + swizzled<kPieces>(8 * n + lane % 8, 4 * k + lane / 8));
      mma(s[n], q[2 * k], b[0], b[1]);
      mma(s[n], q[2 * k + 1], b[2], b[3]);
    }

  float most[2] = {m[0], m[1]};
#pragma unroll
  for (int n = 0; n < kChunk / 8; n++)
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int position = chunk * kChunk + 8 * n + lane % 4 * 2 + i % 2, r = i / 2;
      const bool seen = position >= rows.first[r] && position < rows.end[r];
      s[n][i] = seen ? score_of(shape, s[n][i]) : -INFINITY;
      most[r] = fmaxf(most[r], s[n][i]);
    }
  float finite[2];
#pragma unroll
  for (int r = 0; r < 2; r++) {
    for (int mask = 1; mask < 4; mask *= 2) most[r] = fmaxf(most[r], __shfl_xor_sync(0xffffffff, most[r], mask));
    finite[r] = most[r] == -INFINITY ? 0 : most[r];
    const float keep = exp2f(m[r] - finite[r]);
    m[r] = most[r];
    l[2 * r] *= keep;
#pragma unroll
    for (int n = 0; n < HD / 8; n++) {
      o[n][2 * r] *= keep;
      o[n][2 * r + 1] *= keep;
    }
  }
#pragma unroll
  for (int k = 0; k < kChunk / 16; k++) {
    uint32_t weights[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const float(&tile)[4] = s[2 * k + i / 2];
      weights[i] = pack(exp2f(tile[i % 2 * 2] - finite[i % 2]), exp2f(tile[i % 2 * 2 + 1] - finite[i % 2]));
    }
    mma(l, weights, kOnes, kOnes);
#pragma unroll
    for (int n = 0; n < HD / 16; n++) {
      uint32_t b[4];
      load_matrices<true>(b, stage.v + swizzled<kPieces>(16 * k + lane % 16, 2 * n + lane / 16));
      mma(o[2 * n], weights, b[0], b[1]);
      mma(o[2 * n + 1], weights, b[2], b[3]);
    }
  }
}

template <int HD, int WARPS>
__global__ void __launch_bounds__(32 * WARPS, 1) attend_tiles(Batch batch, Shape shape, Plan plan, bool small) {
  PS_SHARED(memory);
  Shared<HD, WARPS>& shared = *reinterpret_cast<Shared<HD, WARPS>*>(memory);
  const int lane = threadIdx.x % 32, column = threadIdx.x;
  const int64_t items = plan.ends[small ? shape.b - 1 : 2 * shape.b - 1];
  for (int64_t number = blockIdx.x; number < items; number += gridDim.x) {
    const Item item(batch, shape, plan, small, number);
    const Sequence sequence(batch, shape, item.sequence);
    const int32_t* table = batch.table + int64_t(item.sequence) * batch.stride;
    const int last_vector = min(item.vector + 16 * WARPS, sequence.vectors) - 1;
    Rows rows;
    int warp_end = 0;
    for (int r = 0; r < 2; r++) {
      rows.vector[r] = item.vector + threadIdx.x / 32 * 16 + lane / 4 + 8 * r;
      const bool exists = rows.vector[r] <= last_vector;
      rows.end[r] = exists ? sequence.end_of(shape, rows.vector[r]) : 0;
      rows.first[r] = Sequence::first_seen(shape, rows.end[r]);
      const int64_t row = sequence.row0 + rows.vector[r] / shape.group();
      rows.query[r] = row * shape.hq + item.head * shape.group() + rows.vector[r] % shape.group();
      warp_end = max(warp_end, rows.end[r]);
    }
    for (int mask = 4; mask < 32; mask *= 2) warp_end = max(warp_end, __shfl_xor_sync(0xffffffff, warp_end, mask));

    constexpr int kPerPartition = kPartition / kChunk;
    const int tile_end = sequence.end_of(shape, last_vector);
    int from = Sequence::first_seen(shape, sequence.end_of(shape, item.vector)) / kChunk, to = (tile_end + kChunk - 1) / kChunk;
    if (item.partition >= 0) {
      from = max(from, item.partition * kPerPartition);
      to = min(to, (item.partition + 1) * kPerPartition);
    }
    uint32_t q[HD / 16][4];
    load_queries<HD>(q, rows, batch, shape);
    float total_m[2] = {-INFINITY, -INFINITY}, total_l[2] = {};
    for (int i = 0; i < HD / 2; i++) shared.total[i][column] = 0;
    float m[2] = {-INFINITY, -INFINITY}, l[4] = {}, o[HD / 8][4] = {};
    __syncthreads();  // the item before has been read
    if (from < to) fetch<HD, WARPS>(shared.stages[from % kStages], batch, shape, table, item.head, from, tile_end);
    commit_copies();
    for (int chunk = from; chunk < to; chunk++) {
      if (chunk + 1 < to)
        fetch<HD, WARPS>(shared.stages[(chunk + 1) % kStages], batch, shape, table, item.head, chunk + 1, tile_end);
      commit_copies();
      wait_copies<1>();
      __syncthreads();
      if (chunk * kChunk < warp_end) attend_chunk<HD>(shared.stages[chunk % kStages], q, rows, shape, chunk, m, l, o);
      __syncthreads();
      const bool is_last = chunk + 1 == to;
      if (item.partition >= 0 || !(is_last || (chunk + 1) % kPerPartition == 0)) continue;
#pragma unroll
      for (int r = 0; r < 2; r++) {
        if (m[r] == -INFINITY) continue;
        const Merge merge(total_m[r], m[r]);
        total_m[r] = merge.m;
        total_l[r] = merge(total_l[r], l[2 * r]);
        m[r] = -INFINITY;
        l[2 * r] = 0;
#pragma unroll
        for (int n = 0; n < HD / 8; n++)
#pragma unroll
          for (int j = 2 * r; j < 2 * r + 2; j++) {
            float& sum = shared.total[4 * n + j][column];
            sum = merge(sum, o[n][j]);
            o[n][j] = 0;
          }
      }
    }

#pragma unroll
    for (int r = 0; r < 2; r++) {
      if (rows.end[r] == 0) continue;
      const int64_t partial = item.partial + int64_t(rows.vector[r]) * sequence.partitions;
      if (item.partition >= 0 && lane % 4 == 0) plan.ml[partial] = {m[r], l[2 * r]};
#pragma unroll
      for (int n = 0; n < HD / 8; n++) {
        const int d = 8 * n + lane % 4 * 2;
        if (d >= shape.hd) continue;
        if (item.partition >= 0) {
          *reinterpret_cast<float2*>(plan.o + partial * shape.hd + d) = {o[n][2 * r], o[n][2 * r + 1]};
          continue;
        }
        const float* sum = &shared.total[4 * n + 2 * r][column];
        const float left = sum[0] / total_l[r] + 0.0f, right = sum[32 * WARPS] / total_l[r] + 0.0f;
        *reinterpret_cast<uint32_t*>(static_cast<Bf16*>(batch.out) + rows.query[r] * shape.hd + d) = pack(left, right);
      }
    }
  }
}

template <int HD>
static void run(Context& ctx, const Batch& batch, const Shape& shape, const Plan& plan) {
  launch(ctx, attend_tiles<HD, 1>, 4 * ctx.processors, 32, sizeof(Shared<HD, 1>), batch, shape, plan, true);
  launch(ctx, attend_tiles<HD, 4>, 2 * ctx.processors, 128, sizeof(Shared<HD, 4>), batch, shape, plan, false);
}

}  // namespace PS_ISA

bool fits_mma(const Context& ctx, const Batch& batch, const Shape& shape, int32_t dtype, int32_t kv_dtype) {
  const bool aligned = uint64_t(batch.qkv) % 4 == 0 && uint64_t(batch.out) % 4 == 0 && uint64_t(batch.k_cache) % 16 == 0 &&
                       uint64_t(batch.v_cache) % 16 == 0;
  return dtype == PS_BF16 && kv_dtype == PS_BF16 && shape.hd % 8 == 0 && shape.hd <= 128 && shape.group() <= kSmallTile &&
         aligned && ctx.max_shared >= int(sizeof(PS_ISA::Shared<128, 4>));
}

void attend_mma(Context& ctx, const Batch& batch, const Shape& shape, const Plan& plan) {
  shape.hd <= 64 ? PS_ISA::run<64>(ctx, batch, shape, plan) : PS_ISA::run<128>(ctx, batch, shape, plan);
}
