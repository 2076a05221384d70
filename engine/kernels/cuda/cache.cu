// The paged KV cache. Here both caches are blocks of [hkv, block_size, hd], so that a position's head is one run of
// memory, 16 bytes of which a thread of attention copies at a time.
#include "context.h"

namespace PS_ISA {

/* A block writes k and v of a row; the two halves of its threads' range are neighbours in qkv. */
template <class T, class Kv>
__global__ void write_rows(Kv* k_cache, Kv* v_cache, const T* qkv, const int32_t* slots, int hq, int hkv, int hd,
                           int block_size) {
  const int64_t block = slots[blockIdx.x] / block_size, offset = slots[blockIdx.x] % block_size;
  const T* k = qkv + (int64_t(blockIdx.x) * (hq + 2 * hkv) + hq) * hd;
  const T* v = k + int64_t(hkv) * hd;
  for (int i = threadIdx.x; i < hkv * hd; i += blockDim.x) {
    const int64_t to = ((block * hkv + i / hd) * block_size + offset) * hd + i % hd;
    k_cache[to] = from_float<Kv>(to_float(k[i]));
    v_cache[to] = from_float<Kv>(to_float(v[i]));
  }
}

static void check_slots(Context& ctx, ps_ptr k_cache, ps_ptr v_cache, const int32_t* slots, int t, int block_size,
                        int64_t block_bytes) {
  ctx.check_indices("slots", slots, t, INT32_MAX);
  const std::vector<int32_t> slot = ctx.fetch(slots, t);
  for (int i = 0; i < t; i++) {
    const int64_t end = (slot[i] / block_size + 1) * block_bytes;
    if (!ctx.contains(k_cache, end) || !ctx.contains(v_cache, end))
      throw Error(PS_E_INVALID, "slots[%d] is %d, beyond the cache", i, slot[i]);
  }
}

void kv_write(Context& ctx, ps_ptr k_cache, ps_ptr v_cache, ps_ptr qkv, ps_ptr slots, int32_t t, int32_t hq,
              int32_t hkv, int32_t hd, int32_t block_size, int32_t dtype, int32_t kv_dtype) {
  require(t >= 0 && hq > 0 && hkv > 0 && hd > 0 && block_size > 0, "t >= 0 and hq, hkv, hd, block_size > 0");
  const int32_t* slot = ctx.tensor<int32_t>("slots", slots, t);
  with_activations(dtype, [&](auto type) {
    with_cache(kv_dtype, [&](auto kv_type) {
      using T = decltype(type);
      using Kv = decltype(kv_type);
      if (ctx.debug) check_slots(ctx, k_cache, v_cache, slot, t, block_size, int64_t(hkv) * hd * block_size * sizeof(Kv));
      launch(ctx, write_rows<T, Kv>, t, 256, 0, reinterpret_cast<Kv*>(k_cache), reinterpret_cast<Kv*>(v_cache),
             ctx.tensor<T>("qkv", qkv, int64_t(t) * (hq + 2 * hkv) * hd), slot, hq, hkv, hd, block_size);
    });
  });
}

/* A thread copies its words of every pair in turn, so that a block may be copied on: grid (pieces, k or v). */
template <class Word>
__global__ void copy_blocks(Word* k_cache, Word* v_cache, const int32_t* pairs, int n, int64_t words) {
  Word* cache = blockIdx.y == 0 ? k_cache : v_cache;
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= words) return;
  for (int pair = 0; pair < n; pair++) cache[pairs[2 * pair + 1] * words + i] = cache[pairs[2 * pair] * words + i];
}

void kv_copy_blocks(Context& ctx, ps_ptr k_cache, ps_ptr v_cache, ps_ptr pairs, int32_t n, uint64_t block_bytes) {
  require(n >= 0, "n >= 0");
  if (n == 0) return;
  const int32_t* pair = ctx.tensor<int32_t>("pairs", pairs, 2 * int64_t(n));
  ctx.check_indices("pairs", pair, 2 * int64_t(n), INT32_MAX);
  if (ctx.debug)
    for (int64_t block : ctx.fetch(pair, 2 * int64_t(n)))
      for (ps_ptr cache : {k_cache, v_cache}) ctx.tensor<char>("pairs: a block", cache + block * block_bytes, block_bytes);
  auto copy = [&](auto word) {
    using Word = decltype(word);
    const int64_t words = block_bytes / sizeof(Word);
    launch(ctx, copy_blocks<Word>, dim3(ceil_div(words, 256), 2), 256, 0, reinterpret_cast<Word*>(k_cache),
           reinterpret_cast<Word*>(v_cache), pair, n, words);
  };
  block_bytes % 16 == 0 ? copy(uint4()) : copy(uint16_t());
}

}  // namespace PS_ISA
