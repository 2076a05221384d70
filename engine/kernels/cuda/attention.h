// What the kernels of paged attention share: the batch, the plan that cuts it into items of work, and the merge of
// partitions (rule 2 of pagestream.h). attention.cu plans, attends in f32 and joins; attention_mma.cu attends in bf16.
//
// An item is a tile of query vectors, the (row, head of a group) pairs of one sequence and kv head, over all partitions
// that they see; or, where a sequence has only one small tile (decode), over one partition, which leaves (m, l, o) for
// the join. Both ways merge the same partitions in the same order with the same arithmetic, so the bits are equal.
// Scores are kept times log2(e): weights are powers of two.
#pragma once
#include "context.h"

constexpr int kPartition = PS_ATTENTION_PARTITION;
constexpr int kSmallTile = 16;  // query vectors; a sequence with no more is cut by partitions
constexpr float kLog2e = 1.4426950408889634f;

struct Shape {
  int b, hq, hkv, hd, block_size, window;
  float scale, softcap;
  PS_BOTH int group() const { return hq / hkv; }
  PS_BOTH int64_t width() const { return int64_t(hq + 2 * hkv) * hd; }
};

struct Batch {
  void* out;
  const void *qkv, *k_cache, *v_cache;
  const int32_t *query_start, *kv_length, *table;
  int stride;
};

/* In device memory, made by attention.cu for every call. */
struct Plan {
  int64_t* ends;     // [2, b]: items up to each sequence, of small tiles and of large ones
  int64_t* partial;  // [b]: where a sequence's partial results begin; -1: it has none
  float2* ml;        // [vectors x partitions]
  float* o;          // [vectors x partitions, hd]
  int64_t capacity;  // of ml and o
  int large_tile;    // query vectors
};

/* One sequence of the batch. */
struct Sequence {
  int row0, rows, length, vectors, first_partition, partitions;

  __device__ Sequence(const Batch& batch, const Shape& shape, int i) {
    row0 = batch.query_start[i];
    rows = batch.query_start[i + 1] - row0;
    length = batch.kv_length[i];
    vectors = rows * shape.group();
    first_partition = first_seen(shape, length - rows + 1) / kPartition;
    partitions = (length + kPartition - 1) / kPartition - first_partition;
  }
  /* The first position seen by a row that sees positions below `end`. */
  __device__ static int first_seen(const Shape& shape, int end) {
    return shape.window > 0 && end > shape.window ? end - shape.window : 0;
  }
  /* The row of a query vector sees positions below this. */
  __device__ int end_of(const Shape& shape, int vector) const { return length - rows + vector / shape.group() + 1; }
};

/* Item `number` of the small or the large ones. Partial results of a vector: index + partition - first_partition. */
struct Item {
  int sequence, head, vector, partition;  // partition -1: all
  int64_t partial;                        // of `vector` in partition 0 of the sequence

  __device__ Item(const Batch& batch, const Shape& shape, const Plan& plan, bool small, int64_t number) {
    const int64_t* ends = plan.ends + (small ? 0 : shape.b);
    int low = 0, high = shape.b - 1;
    while (low < high) {
      const int middle = (low + high) / 2;
      if (ends[middle] > number) high = middle;
      else low = middle + 1;
    }
    sequence = low;
    const int within = int(number - (low > 0 ? ends[low - 1] : 0));
    const Sequence own(batch, shape, low);
    const bool is_cut = small && plan.partial[low] >= 0;
    const int tiles = small ? 1 : (own.vectors + plan.large_tile - 1) / plan.large_tile;
    head = within % shape.hkv;
    vector = is_cut ? 0 : within / shape.hkv % tiles * plan.large_tile;
    partition = is_cut ? own.first_partition + within / shape.hkv : -1;
    partial = is_cut ? plan.partial[low] + int64_t(head) * own.vectors * own.partitions + within / shape.hkv : 0;
  }
};

/* What of the results before and of the next partition remains when they are brought to their common maximum. */
struct Merge {
  float m, before, now;
  __device__ Merge(float m0, float m1) : m(fmaxf(m0, m1)), before(exp2f(m0 - m)), now(exp2f(m1 - m)) {}
  /* Never contracted, so that it is the same wherever it is compiled. */
  __device__ float operator()(float a, float b) const { return __fadd_rn(__fmul_rn(a, before), __fmul_rn(b, now)); }
};

/* The score of a dot product, times log2(e). */
__device__ inline float score_of(const Shape& shape, float dot) {
  const float s = dot * shape.scale;
  return (shape.softcap > 0 ? shape.softcap * tanhf(s / shape.softcap) : s) * kLog2e;
}

/* Whether attention_mma.cu can take this; then its large tile, and its kernels. */
bool fits_mma(const Context& ctx, const Batch& batch, const Shape& shape, int32_t dtype, int32_t kv_dtype);
constexpr int kMmaTile = 64;
void attend_mma(Context& ctx, const Batch& batch, const Shape& shape, const Plan& plan);
