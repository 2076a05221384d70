// The random numbers of sampling, for both libraries: Philox4x32-10 (Salmon et al., SC11; the vectors of Random123) and
// a logarithm of our own, so that a token does not depend on the machine's libm. Include from C++ and CUDA alike.
#pragma once
#include <stdint.h>
#include <string.h>

#include "both.h"

struct Philox {
  uint32_t word[4];
};

/* Ten rounds over the counter. */
PS_BOTH Philox philox(Philox c, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; round++) {
    const uint64_t a = uint64_t(0xD2511F53u) * c.word[0], b = uint64_t(0xCD9E8D57u) * c.word[2];
    c = {{uint32_t(b >> 32) ^ c.word[1] ^ key0, uint32_t(b), uint32_t(a >> 32) ^ c.word[3] ^ key1, uint32_t(a)}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return c;
}

/* The words of four neighbouring tokens; that of a token is word[token % 4]. */
PS_BOTH Philox philox_of_tokens(uint32_t seed_low, uint32_t seed_high, uint32_t choice, uint32_t position,
                                uint32_t token) {
  return philox({{token / 4, position, choice, 0}}, seed_low, seed_high);
}

/* In (0, 1), exact. */
PS_BOTH double uniform(uint32_t word) { return (double(word) + 0.5) * 0x1p-32; }

/* Natural logarithm of a positive, normal x: x = m 2^e, m in [sqrt(1/2), sqrt 2); log m = 2 atanh(s), s = (m-1)/(m+1),
 * as the series of atanh. Relative error below 1e-15. Only operations that IEEE 754 rounds alike everywhere. */
PS_BOTH double ps_log(double x) {
  uint64_t bits;
  memcpy(&bits, &x, sizeof bits);
  int exponent = int(bits >> 52) - 1023;
  bits = (bits & 0x000fffffffffffffull) | 0x3ff0000000000000ull;
  double m;
  memcpy(&m, &bits, sizeof m);
  if (m > 1.4142135623730951) {
    m *= 0.5;
    exponent++;
  }
  const double s = (m - 1.0) / (m + 1.0), z = s * s;
  double p = 1.0 / 23;
  for (int n = 21; n >= 1; n -= 2) p = p * z + 1.0 / n;
  return double(exponent) * 0.6931471805599453 + 2.0 * s * p;
}
