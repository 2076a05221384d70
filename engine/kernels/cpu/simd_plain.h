// Vec as an array: any processor. The compiler makes SSE2 or NEON of the loops.
#pragma once
#include <cstdint>

namespace PS_ISA {

struct Vec {
  float lane[16];
};

template <class F>
inline Vec each(F f) {
  Vec r;
  for (int i = 0; i < 16; i++) r.lane[i] = f(i);
  return r;
}

template <class T>
inline Vec load(const T* p) {
  return each([&](int i) { return to_float(p[i]); });
}
inline void store(float* p, Vec a) {
  for (int i = 0; i < 16; i++) p[i] = a.lane[i];
}
inline Vec set1(float x) {
  return each([&](int) { return x; });
}

inline Vec operator+(Vec a, Vec b) {
  return each([&](int i) { return a.lane[i] + b.lane[i]; });
}
inline Vec operator-(Vec a, Vec b) {
  return each([&](int i) { return a.lane[i] - b.lane[i]; });
}
inline Vec operator*(Vec a, Vec b) {
  return each([&](int i) { return a.lane[i] * b.lane[i]; });
}
inline Vec operator/(Vec a, Vec b) {
  return each([&](int i) { return a.lane[i] / b.lane[i]; });
}
/* a * b + c, rounded once */
inline Vec fma(Vec a, Vec b, Vec c) {
  return each([&](int i) { return __builtin_fmaf(a.lane[i], b.lane[i], c.lane[i]); });
}
/* The second one if either is a NaN. */
inline Vec max(Vec a, Vec b) {
  return each([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
}
inline Vec min(Vec a, Vec b) {
  return each([&](int i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
}
inline Vec where_less(Vec a, Vec b, Vec yes, Vec no) {
  return each([&](int i) { return a.lane[i] < b.lane[i] ? yes.lane[i] : no.lane[i]; });
}
/* 2^n for whole n in -126..127 */
inline Vec pow2(Vec n) {
  return each([&](int i) {
    const uint32_t bits = uint32_t(int32_t(n.lane[i]) + 127) << 23;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
  });
}

/* Lanes i and i + 8 first, then i and i + 4, 2, 1. */
inline float sum(Vec a) {
  for (int half = 8; half > 0; half /= 2)
    for (int i = 0; i < half; i++) a.lane[i] += a.lane[i + half];
  return a.lane[0];
}
inline float max(Vec a) {
  for (int half = 8; half > 0; half /= 2)
    for (int i = 0; i < half; i++) a.lane[i] = a.lane[i] > a.lane[i + half] ? a.lane[i] : a.lane[i + half];
  return a.lane[0];
}

/* The even and odd ones of 32 bf16: the weights of 16 outputs for two neighbouring k. */
inline Vec load_even(const Bf16* p) {
  return each([&](int i) { return to_float(p[2 * i]); });
}
inline Vec load_odd(const Bf16* p) {
  return each([&](int i) { return to_float(p[2 * i + 1]); });
}

}  // namespace PS_ISA
