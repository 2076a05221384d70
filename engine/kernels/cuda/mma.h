// Tensor cores and asynchronous copies: PTX on a GPU, the same in software for the emulation, where a copy arrives no
// sooner than the kernel waits for it. Fragments of m16n8k16 as the PTX manual lays them out: with g = lane / 4 and
// t = lane % 4, c holds rows g and g + 8, columns 2t and 2t + 1.
#pragma once
#include "context.h"

/* c += a b: a is 16 x 16, b 16 x 8, both bf16; c is f32. */
__device__ inline void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#ifdef PS_EMULATION
  const uint64_t own[3] = {a[0] | uint64_t(a[1]) << 32, a[2] | uint64_t(a[3]) << 32, b0 | uint64_t(b1) << 32};
  const uint64_t* all = emulation::exchange(own, 3);
  // Register `half` of word `word` of a lane: two neighbouring k.
  auto pair = [&](int lane, int word, int half) { return uint32_t(all[emulation::kWords * lane + word] >> 32 * half); };
  const int g = emulation::current->lane / 4, t = emulation::current->lane % 4;
  for (int i = 0; i < 4; i++)
    for (int k = 0; k < 16; k++) {
      const int from = k % 8 / 2, shift = k % 2 * 16;
      const uint32_t left = pair(4 * g + from, k / 8, i / 2) >> shift;
      const uint32_t right = pair(4 * (2 * t + i % 2) + from, 2, k / 8) >> shift;
      c[i] += to_float(Bf16{uint16_t(left)}) * to_float(Bf16{uint16_t(right)});
    }
#else
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

#ifndef PS_EMULATION
__device__ inline uint32_t shared_address(const void* p) { return uint32_t(__cvta_generic_to_shared(p)); }
#endif

/* Four 8 x 8 matrices of bf16 from shared memory; lane i gives the address of row i % 8 of matrix i / 8. */
template <bool kTransposed>
__device__ inline void load_matrices(uint32_t (&r)[4], const void* row) {
#ifdef PS_EMULATION
  const uint64_t own = reinterpret_cast<uint64_t>(row);
  const uint64_t* all = emulation::exchange(&own, 1);
  const int g = emulation::current->lane / 4, t = emulation::current->lane % 4;
  for (int i = 0; i < 4; i++) {
    auto at = [&](int y, int x) {
      return reinterpret_cast<const uint16_t*>(all[emulation::kWords * (8 * i + y)])[x];
    };
    r[i] = kTransposed ? at(2 * t, g) | uint32_t(at(2 * t + 1, g)) << 16 : at(g, 2 * t) | uint32_t(at(g, 2 * t + 1)) << 16;
  }
#else
  if constexpr (kTransposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row)));
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row)));
#endif
}

/* 16 bytes from global to shared memory; zeros if not `inside`, and then nothing is read. */
__device__ inline void copy_async(void* to, const void* from, bool inside) {
#ifdef PS_EMULATION
  emulation::copy_later(to, from, inside ? 16 : 0, inside ? 0 : 16);
#else
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(inside ? 16 : 0)
               : "memory");
#endif
}

/* Ends a group of copies. */
__device__ inline void commit_copies() {
#ifdef PS_EMULATION
  emulation::commit_copies();
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

/* Until all groups of this thread but the last kGroups have arrived. */
template <int kGroups>
__device__ inline void wait_copies() {
#ifdef PS_EMULATION
  emulation::wait_copies(kGroups);
#else
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
#endif
}

/* Two neighbouring elements, the first in the low half. */
__device__ inline uint32_t pack(float first, float second) {
  return from_float<Bf16>(first).bits | uint32_t(from_float<Bf16>(second).bits) << 16;
}

/* Where the 16 bytes `piece` of a row lie in a tile of rows of kPieces x 16 bytes: spread, so that the eight rows which
 * one load takes lie in different banks. */
template <int kPieces>
__device__ inline int swizzled(int row, int piece) {
  return (row * kPieces + (piece ^ (row & 7))) * 8;
}
