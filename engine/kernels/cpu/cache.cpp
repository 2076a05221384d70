// The paged KV cache: blocks of k [hkv, hd, block_size] and v [hkv, block_size, hd] (pagestream.h says why).
#include "cache.h"

#include <algorithm>
#include <cmath>

#include "context.h"
#include "simd.h"

namespace PS_ISA {

/* One head of a token: k with a stride of block_size, v with one of 1. */
template <class T>
static void write_head(const float* from, int hd, T* to, int stride, float*) {
  for (int d = 0; d < hd; d++) to[int64_t(d) * stride] = from_float<T>(from[d]);
}

static void write_head(const float* from, int hd, int8_t* to, int stride, float* scale) {
  float largest = 0;
  for (int d = 0; d < hd; d++) largest = std::max(largest, std::fabs(from[d]));
  const float inverse = inverse_scale(largest, kInt8Most);
  for (int d = 0; d < hd; d++) to[int64_t(d) * stride] = int8_t(to_whole(from[d], inverse));
  *scale = largest / kInt8Most;
}

template <class T>
static void write_row(const float* row, ps_ptr k_cache, ps_ptr v_cache, int64_t slot, int hq, int hkv, int hd,
                      int block_size) {
  const int64_t block = slot / block_size, offset = slot % block_size;
  const float* k = row + int64_t(hq) * hd;
  const float* v = k + int64_t(hkv) * hd;
  for (int h = 0; h < hkv; h++, k += hd, v += hd) {
    const Head<T> k_head(k_cache, block * hkv + h, hd, block_size), v_head(v_cache, block * hkv + h, hd, block_size);
    write_head(k, hd, k_head.data + offset, block_size, k_head.scales + offset);
    write_head(v, hd, v_head.data + offset * hd, 1, v_head.scales + offset);
  }
}

template <class T>
static void write_rows(Context& ctx, ps_ptr k_cache, ps_ptr v_cache, const float* rows, const int32_t* slot, int t,
                       int hq, int hkv, int hd, int block_size) {
  if (ctx.debug) {
    ctx.check_indices("slots", slot, t, INT32_MAX);
    const int64_t block_bytes = hkv * Head<T>::bytes(hd, block_size);
    for (int i = 0; i < t; i++) {
      const int64_t block = slot[i] / block_size;
      if (!ctx.memory.contains(k_cache, (block + 1) * block_bytes) ||
          !ctx.memory.contains(v_cache, (block + 1) * block_bytes))
        throw Error(PS_E_INVALID, "slots[%d] is %d, beyond the cache", i, slot[i]);
    }
  }
  const int64_t width = int64_t(hq + 2 * hkv) * hd;
  ctx.pool.parallel(t, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) write_row<T>(rows + i * width, k_cache, v_cache, slot[i], hq, hkv, hd, block_size);
  });
}

void kv_write(Context& ctx, ps_ptr k_cache, ps_ptr v_cache, ps_ptr qkv, ps_ptr slots, int32_t t, int32_t hq,
              int32_t hkv, int32_t hd, int32_t block_size, int32_t dtype, int32_t kv_dtype) {
  require_f32(dtype);
  require(t >= 0 && hq > 0 && hkv > 0 && hd > 0 && block_size > 0, "t >= 0 and hq, hkv, hd, block_size > 0");
  const float* rows = ctx.tensor<float>("qkv", qkv, int64_t(t) * (hq + 2 * hkv) * hd);
  const int32_t* slot = ctx.tensor<int32_t>("slots", slots, t);
  auto write = kv_dtype == PS_F32    ? write_rows<float>
               : kv_dtype == PS_BF16 ? write_rows<Bf16>
               : kv_dtype == PS_F16  ? write_rows<Half>
               : kv_dtype == PS_I8   ? write_rows<int8_t>
                                     : nullptr;
  if (kv_dtype == PS_I8) require(hd % 4 == 0, "hd is a multiple of 4 with an int8 cache");
  if (!write) throw Error(PS_E_UNSUPPORTED, "kv_dtype %d; the cache is f32, f16, bf16 or int8", kv_dtype);
  write(ctx, k_cache, v_cache, rows, slot, t, hq, hkv, hd, block_size);
}

void kv_copy_blocks(Context& ctx, ps_ptr k_cache, ps_ptr v_cache, ps_ptr pairs, int32_t n, uint64_t block_bytes) {
  require(n >= 0, "n >= 0");
  const int32_t* pair = ctx.tensor<int32_t>("pairs", pairs, 2 * int64_t(n));
  ctx.check_indices("pairs", pair, 2 * int64_t(n), INT32_MAX);
  for (int i = 0; i < n; i++) {
    for (ps_ptr cache : {k_cache, v_cache}) {
      const char* from = ctx.tensor<char>("pairs: block to copy from", cache + pair[2 * i] * block_bytes, block_bytes);
      char* to = ctx.tensor<char>("pairs: block to copy to", cache + pair[2 * i + 1] * block_bytes, block_bytes);
      if (from != to) memcpy(to, from, block_bytes);
    }
  }
}

}  // namespace PS_ISA
