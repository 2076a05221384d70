// Vec: 16 floats, the one vector of all ops. An AVX-512 register, two AVX2 registers or an array: the lanes, and the
// order in which sums over lanes are taken, are the same, so f32 results are equal bit for bit on every machine.
// Ops are written once on Vec and compiled once per instruction set, in namespace PS_ISA.
#pragma once
#include <cmath>

#include "half.h"

#if defined(PS_ISA_AVX512)
#include "simd_avx512.h"
#elif defined(PS_ISA_AVX2)
#include "simd_avx2.h"
#else
#include "simd_plain.h"
#endif

namespace PS_ISA {

constexpr int kLanes = 16;

inline Vec zero() { return set1(0); }

/* The first n lanes from p, the others zero. Never reads beyond p + n. */
template <class T>
inline Vec load(const T* p, int n) {
  if (n >= kLanes) return load(p);
  T part[kLanes] = {};
  for (int i = 0; i < n; i++) part[i] = p[i];
  return load(part);
}

inline void store(float* p, Vec a, int n) {
  if (n >= kLanes) return store(p, a);
  float part[kLanes];
  store(part, a);
  for (int i = 0; i < n; i++) p[i] = part[i];
}

/* fma of numbers that are bf16: their product is exact in f32, so a rounded sum is the same and, without an instruction
 * for it, far cheaper. */
inline Vec fma_of_bf16(Vec a, Vec b, Vec c) {
#if defined(PS_ISA_PLAIN) && !defined(__FP_FAST_FMAF)
  return c + a * b;
#else
  return fma(a, b, c);
#endif
}

/* e^x after Cephes: x = n ln 2 + r, |r| <= ln 2 / 2, relative error below 2e-7. 0 below -87.3, infinity above 88.0. */
inline Vec exp(Vec x) {
  constexpr float kLow = -87.3f, kHigh = 88.0f;
  constexpr float kRound = 12582912.f;  // 1.5 * 2^23: adding it rounds to an integer
  const Vec bounded = min(set1(kHigh), max(set1(kLow), x));
  const Vec n = bounded * set1(1.44269504088896341f) + set1(kRound) - set1(kRound);
  const Vec r = fma(n, set1(2.12194440e-4f), fma(n, set1(-0.693359375f), bounded));
  Vec p = set1(1.9875691500e-4f);
  p = fma(p, r, set1(1.3981999507e-3f));
  p = fma(p, r, set1(8.3334519073e-3f));
  p = fma(p, r, set1(4.1665795894e-2f));
  p = fma(p, r, set1(1.6666665459e-1f));
  p = fma(p, r, set1(5.0000001201e-1f));
  const Vec y = (fma(p, r * r, r) + set1(1)) * pow2(n);
  return where_less(x, set1(kLow), zero(), where_less(set1(kHigh), x, set1(INFINITY), y));
}

/* 1 / (1 + e^-x) */
inline Vec sigmoid(Vec x) { return set1(1) / (set1(1) + exp(zero() - x)); }

inline Vec tanh(Vec x) { return set1(2) * sigmoid(x + x) - set1(1); }

}  // namespace PS_ISA
