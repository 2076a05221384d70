// One linear op as its tiles see it, and the formats of weights: how a step of a panel (weight.cpp) is multiplied.
//
// Every format takes x as words of 32 bits, kParts of them per step, which are given to all lanes: f32 one number; bf16 two
// numbers widened to f32, or both as they are; int8 four numbers as they are, or widened to two pairs. A row of x is kRows
// rows of words: two for int8, whose sums finish() puts together.
#pragma once
#include "context.h"
#include "simd.h"
#include "simd_int8.h"

namespace PS_ISA {

struct Linear {
  const Weight& w;
  const char* x;
  int64_t row_bytes;    // of x, of a row of words
  const float* scales;  // of the rows of x, for int8
  float* y;
  int64_t ldy;
  const float* bias;

  int vecs() const { return (w.n + kLanes - 1) / kLanes; }

  /* y of one row and 16 outputs. */
  void finish(const Vec (&sums)[1], int row, int vec) const { write(sums[0], row, vec); }
  void finish(const Ints (&sums)[2], int row, int vec) const {
    const Scales& of_w = w.scales(vec * kLanes / kPanel);
    const int lane = vec * kLanes % kPanel;
    const Vec high = to_floats(without_offset(sums[0], of_w.offset + lane));
    const Vec low = to_floats(without_offset(sums[1], of_w.offset + lane));
    write(fma(high, set1(256), low) * (load(of_w.scale + lane) * set1(scales[row])), row, vec);
  }

 private:
  void write(Vec sum, int row, int vec) const {
    const int column = vec * kLanes, lanes = w.n - column;
    if (bias) sum = sum + load(bias + column, lanes);
    store(y + row * ldy + column, sum, lanes);
  }
};

struct F32 {
  using Sum = Vec;
  static constexpr int kParts = 1, kRows = 1;
  static Sum none() { return zero(); }
  static Vec weights(const char* step, int) { return load(reinterpret_cast<const float*>(step)); }
  static Vec value(const char* word) { return set1(*reinterpret_cast<const float*>(word)); }
  static Sum multiply_add(Vec w, Vec x, Sum sum) { return fma(w, x, sum); }
};

#if defined(__AVX512BF16__)
/* vdpbf16ps. */
struct BF16 {
  using Sum = Vec;
  static constexpr int kParts = 1, kRows = 1;
  static Sum none() { return zero(); }
  static __m512i weights(const char* step, int) { return _mm512_loadu_si512(step); }
  static __m512i value(const char* word) { return _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(word)); }
  static Sum multiply_add(__m512i w, __m512i x, Sum sum) { return {_mm512_dpbf16_ps(sum.all, (__m512bh)w, (__m512bh)x)}; }
};
#else
struct BF16 : F32 {
  static constexpr int kParts = 2, kRows = 1;
  static Vec weights(const char* step, int part) {
    const Bf16* pairs = reinterpret_cast<const Bf16*>(step);
    return part == 0 ? load_even(pairs) : load_odd(pairs);
  }
  static Sum multiply_add(Vec w, Vec x, Sum sum) { return fma_of_bf16(w, x, sum); }
};
#endif

struct Int8 {
  using Sum = Ints;
  static constexpr int kParts = kInt8Parts, kRows = 2;
  static Sum none() { return zero_ints(); }
  static Quads weights(const char* step, int part) { return load_quads(step, part); }
  static Quads value(const char* word) { return set1_quads(word); }
  static Sum multiply_add(Quads w, Quads x, Sum sum) { return add_products(w, x, sum); }
};

}  // namespace PS_ISA
