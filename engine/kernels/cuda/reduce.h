// Sums and maxima over a warp and over a block, in an order that depends on nothing but the number of threads.
#pragma once
#include "context.h"

constexpr uint32_t kWarp = 0xffffffff;
constexpr int kMaxWarps = 32;

template <class T, class Combine>
__device__ T reduce_warp(T value, Combine combine) {
  for (int mask = 16; mask > 0; mask /= 2) value = combine(value, __shfl_xor_sync(kWarp, value, mask));
  return value;
}

/* The same in every thread. The block is a whole number of warps; T fits in 8 bytes. */
template <class T, class Combine>
__device__ T reduce_block(T value, Combine combine) {
  __shared__ T of_warp[kMaxWarps];
  value = reduce_warp(value, combine);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
  __syncthreads();
  value = of_warp[0];
  for (int i = 1; i < int(blockDim.x / 32); i++) value = combine(value, of_warp[i]);
  __syncthreads();
  return value;
}

struct Sum {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct Max {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a > b ? a : b;
  }
};

template <class T>
__device__ T block_sum(T value) {
  return reduce_block(value, Sum());
}
template <class T>
__device__ T block_max(T value) {
  return reduce_block(value, Max());
}
template <class T>
__device__ T warp_sum(T value) {
  return reduce_warp(value, Sum());
}
template <class T>
__device__ T warp_max(T value) {
  return reduce_warp(value, Max());
}

/* Sum over the threads up to and including this one; of all in `total`. The block is a whole number of warps. */
__device__ inline int64_t block_scan(int64_t value, int64_t& total) {
  __shared__ int64_t of_warp[kMaxWarps];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (int delta = 1; delta < 32; delta *= 2) {
    const int64_t before = __shfl_up_sync(kWarp, value, delta);
    if (lane >= delta) value += before;
  }
  if (lane == 31) of_warp[warp] = value;
  __syncthreads();
  total = 0;
  for (int i = 0; i < int(blockDim.x / 32); i++) {
    if (i < warp) value += of_warp[i];
    total += of_warp[i];
  }
  __syncthreads();
  return value;
}
