// bf16, f16 and int8 as stored, and conversions of one number; g++ before 12 has no type of its own for the first two.
// Rounding is to nearest, ties to even; a NaN stays a NaN, but in int8.
#pragma once
#include <cstdint>
#include <cstring>

struct Bf16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

inline uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline float float_of(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

inline float to_float(float x) { return x; }
inline float to_float(Bf16 x) { return float_of(uint32_t(x.bits) << 16); }
inline float to_float(Half x) {
  const uint32_t sign = uint32_t(x.bits & 0x8000) << 16, rest = uint32_t(x.bits & 0x7fff) << 13;
  if (rest >= 0x7c00u << 13) return float_of(sign | 0x7f800000 | rest);
  return float_of(sign | bits_of(float_of(rest) * 0x1p112f));  // moves the exponent, also of subnormal numbers
}

template <class T>
T from_float(float x);
template <>
inline float from_float<float>(float x) {
  return x;
}
template <>
inline Bf16 from_float<Bf16>(float x) {
  const uint32_t bits = bits_of(x);
  if (x != x) return {uint16_t(bits >> 16 | 0x40)};
  return {uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
template <>
inline Half from_float<Half>(float x) {
  const uint32_t sign = bits_of(x) >> 16 & 0x8000, rest = bits_of(x) & 0x7fffffff;
  uint32_t half;
  if (rest >= bits_of(65536.0f))
    half = x != x ? 0x7e00 : 0x7c00;
  else if (rest < bits_of(0x1p-14f))
    half = bits_of(float_of(rest) + 0.5f) - bits_of(0.5f);  // the addition rounds to multiples of 2^-24
  else
    half = (rest - (112u << 23) + 0xfff + (rest >> 13 & 1)) >> 13;
  return {uint16_t(sign | half)};
}

/* Whole numbers: rule 5 of pagestream.h. `largest` is the largest magnitude of the numbers that share a scale. */
constexpr float kInt8Most = 127, kInt16Most = 32512;
inline float inverse_scale(float largest, float most) { return largest > 0 ? most / largest : 0; }
inline int32_t to_whole(float x, float inverse) {
  constexpr float kRound = 12582912.f;  // 1.5 * 2^23: adding it rounds to an integer
  return int32_t(bits_of(x * inverse + kRound) - bits_of(kRound));
}
inline float to_float(int8_t x) { return x; }
