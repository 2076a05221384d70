// bf16 and f16 as stored, and single conversions. Rounding is to nearest, ties to even; a NaN stays a NaN.
#pragma once
#include <cstdint>
#include <cstring>

struct Bf16 {
  uint16_t bits;
};
using Half = _Float16;

inline float to_float(float x) { return x; }
inline float to_float(Half x) { return float(x); }
inline float to_float(Bf16 x) {
  const uint32_t bits = uint32_t(x.bits) << 16;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

template <class T>
inline T from_float(float x) {
  return T(x);
}
template <>
inline Bf16 from_float<Bf16>(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  if (x != x) return {uint16_t(bits >> 16 | 0x40)};
  return {uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
