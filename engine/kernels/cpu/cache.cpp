// The paged KV cache: blocks of k [hkv, hd, block_size] and v [hkv, block_size, hd] (pagestream.h says why).
#include "context.h"
#include "simd.h"

namespace PS_ISA {

template <class T>
static void write_row(const float* row, T* k_cache, T* v_cache, int64_t slot, int hq, int hkv, int hd, int block_size) {
  const int64_t block = slot / block_size, offset = slot % block_size;
  const float* k = row + int64_t(hq) * hd;
  const float* v = k + int64_t(hkv) * hd;
  for (int h = 0; h < hkv; h++, k += hd, v += hd) {
    const int64_t base = (block * hkv + h) * hd * block_size;
    for (int d = 0; d < hd; d++) {
      k_cache[base + int64_t(d) * block_size + offset] = from_float<T>(k[d]);
      v_cache[base + offset * hd + d] = from_float<T>(v[d]);
    }
  }
}

template <class T>
static void write_rows(Context& ctx, ps_ptr k_cache, ps_ptr v_cache, const float* rows, const int32_t* slot, int t,
                       int hq, int hkv, int hd, int block_size) {
  T* k = reinterpret_cast<T*>(k_cache);
  T* v = reinterpret_cast<T*>(v_cache);
  if (ctx.debug) {
    ctx.check_indices("slots", slot, t, INT32_MAX);
    const int64_t block_elements = int64_t(hkv) * hd * block_size;
    for (int i = 0; i < t; i++) {
      const int64_t block = slot[i] / block_size;
      if (!ctx.memory.contains(k_cache, (block + 1) * block_elements * sizeof(T)) ||
          !ctx.memory.contains(v_cache, (block + 1) * block_elements * sizeof(T)))
        throw Error(PS_E_INVALID, "slots[%d] is %d, beyond the cache", i, slot[i]);
    }
  }
  const int64_t width = int64_t(hq + 2 * hkv) * hd;
  ctx.pool.parallel(t, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) write_row(rows + i * width, k, v, slot[i], hq, hkv, hd, block_size);
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
                                     : nullptr;
  if (!write) throw Error(PS_E_UNSUPPORTED, "kv_dtype %d; the cache is f32, f16 or bf16", kv_dtype);
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
