// Ints: 16 sums of int32. Quads: four int8 weights of 16 outputs, or four numbers of x for all of them. Sums of whole
// numbers are exact, so every way to take them gives the same bits:
//   VNNI        vpdpbusd, which wants x unsigned: 128 is added to it, and taken off the sum at the end (Scales::offset)
//   otherwise   the even and the odd ones of the four as pairs of int16 (kInt8Parts = 2), as vpmaddwd takes them
#pragma once
#include <algorithm>
#include <type_traits>

#include "simd.h"

namespace PS_ISA {

#if defined(__AVX512VNNI__)
constexpr bool kInt8IsUnsigned = true;
constexpr int kInt8Parts = 1;
#else
constexpr bool kInt8IsUnsigned = false;
constexpr int kInt8Parts = 2;
#endif

#if defined(PS_ISA_AVX512)
struct Ints {
  __m512i all;
};
using Quads = Ints;
inline Ints zero_ints() { return {_mm512_setzero_si512()}; }
inline Ints load_ints(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
inline Vec to_floats(Ints a) { return {_mm512_cvtepi32_ps(a.all)}; }
inline Quads set1_quads(const char* word) { return {_mm512_set1_epi32(*reinterpret_cast<const int32_t*>(word))}; }
#if defined(__AVX512VNNI__)
inline Quads load_quads(const char* p, int) { return {_mm512_loadu_si512(p)}; }
inline Ints add_products(Quads w, Quads x, Ints sum) { return {_mm512_dpbusd_epi32(sum.all, x.all, w.all)}; }
inline Ints without_offset(Ints sum, const int32_t* p) { return {_mm512_sub_epi32(sum.all, load_ints(p).all)}; }
#else
inline Quads load_quads(const char* p, int part) {
  const __m512i all = _mm512_loadu_si512(p);
  return {_mm512_srai_epi16(part == 0 ? _mm512_slli_epi16(all, 8) : all, 8)};
}
inline Ints add_products(Quads w, Quads x, Ints sum) {
  return {_mm512_add_epi32(sum.all, _mm512_madd_epi16(w.all, x.all))};
}
#endif

#elif defined(PS_ISA_AVX2)
struct Ints {
  __m256i low, high;
};
using Quads = Ints;
inline Ints zero_ints() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
inline Vec to_floats(Ints a) { return {_mm256_cvtepi32_ps(a.low), _mm256_cvtepi32_ps(a.high)}; }
inline Quads set1_quads(const char* word) {
  const __m256i all = _mm256_set1_epi32(*reinterpret_cast<const int32_t*>(word));
  return {all, all};
}
inline __m256i pairs(const char* p, int part) {
  const __m256i all = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm256_srai_epi16(part == 0 ? _mm256_slli_epi16(all, 8) : all, 8);
}
inline Quads load_quads(const char* p, int part) { return {pairs(p, part), pairs(p + 32, part)}; }
inline Ints add_products(Quads w, Quads x, Ints sum) {
  return {_mm256_add_epi32(sum.low, _mm256_madd_epi16(w.low, x.low)),
          _mm256_add_epi32(sum.high, _mm256_madd_epi16(w.high, x.high))};
}

#else
struct Ints {
  int32_t lane[16];
};
struct Quads {
  int16_t lane[16][2];
};
inline Ints zero_ints() { return {}; }
inline Vec to_floats(Ints a) {
  return each([&](int i) { return float(a.lane[i]); });
}
inline Quads set1_quads(const char* word) {
  Quads r;
  for (auto& pair : r.lane) memcpy(pair, word, sizeof pair);
  return r;
}
inline Quads load_quads(const char* p, int part) {
  Quads r;
  for (int i = 0; i < 16; i++)
    for (int j = 0; j < 2; j++) r.lane[i][j] = static_cast<signed char>(p[4 * i + 2 * j + part]);
  return r;
}
inline Ints add_products(Quads w, Quads x, Ints sum) {
  for (int i = 0; i < 16; i++) sum.lane[i] += w.lane[i][0] * x.lane[i][0] + w.lane[i][1] * x.lane[i][1];
  return sum;
}
#endif

#if !defined(__AVX512VNNI__)
inline Ints without_offset(Ints sum, const int32_t*) { return sum; }
#endif

/* A row of x as two rows of words, those of h and those of l, as set1_quads takes them. Returns the scale. */
inline float quantise(const float* x, int k, int steps, char* out) {
  using Number = std::conditional_t<kInt8IsUnsigned, uint8_t, int16_t>;
  constexpr int kOffset = kInt8IsUnsigned ? kInt8Offset : 0;
  Vec most = zero();
  for (int i = 0; i < k; i += kLanes) {
    const Vec v = load(x + i, k - i);
    most = max(max(v, zero() - v), most);
  }
  const float largest = max(most), inverse = inverse_scale(largest, kInt16Most);
  Number* high = reinterpret_cast<Number*>(out);
  Number* low = high + 4 * steps;
  std::fill(high, low + 4 * steps, Number(0));
  for (int i = 0; i < k; i++) {
    // Of pairs, the even ones of the four come first.
    const int at = kInt8Parts == 1 ? i : (i & ~3) | (i & 1) << 1 | (i >> 1 & 1);
    const int32_t q = to_whole(x[i], inverse), h = (q + 128) >> 8;
    high[at] = Number(h + kOffset);
    low[at] = Number(q - 256 * h + kOffset);
  }
  return largest / kInt16Most;
}

}  // namespace PS_ISA
