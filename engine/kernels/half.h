// bf16 and f16 as stored, and conversions of one number; g++ before 12 has no type of its own for them. Rounding is to
// nearest, ties to even; a NaN stays a NaN.
#pragma once
#include <cstdint>
#include <cstring>

#include "both.h"

struct Bf16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

PS_BOTH uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}
PS_BOTH float float_of(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

PS_BOTH float to_float(float x) { return x; }
PS_BOTH float to_float(Bf16 x) { return float_of(uint32_t(x.bits) << 16); }
PS_BOTH float to_float(Half x) {
  const uint32_t sign = uint32_t(x.bits & 0x8000) << 16, rest = uint32_t(x.bits & 0x7fff) << 13;
  if (rest >= 0x7c00u << 13) return float_of(sign | 0x7f800000 | rest);
  return float_of(sign | bits_of(float_of(rest) * 0x1p112f));  // moves the exponent, also of subnormal numbers
}

template <class T>
PS_BOTH T from_float(float x);
template <>
PS_BOTH float from_float<float>(float x) {
  return x;
}
template <>
PS_BOTH Bf16 from_float<Bf16>(float x) {
  const uint32_t bits = bits_of(x);
  if (x != x) return {uint16_t(bits >> 16 | 0x40)};
  return {uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
template <>
PS_BOTH Half from_float<Half>(float x) {
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
