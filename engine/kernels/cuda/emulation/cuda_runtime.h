// The part of CUDA that our kernels use, on a CPU: g++ finds this file instead of NVIDIA's and compiles every .cu as C++.
// A block's threads are fibres of one system thread (emulation.cpp); a barrier is where they switch. Blocks run one
// after the other. Device memory ends where a page that may not be touched begins, so that an index out of range is a
// crash and not a wrong number. For tests of indices and arithmetic: what a GPU does at the same time, it does not show.
//
// Warp functions assume that all lanes of the warp which still run take part, whatever the mask says.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>

#define PS_EMULATION
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__
#define __align__(n) alignas(n)
#define __shared__ static  // one block at a time

struct uint3 {
  uint32_t x, y, z;
};
struct dim3 {
  uint32_t x, y, z;
  dim3(uint32_t x = 1, uint32_t y = 1, uint32_t z = 1) : x(x), y(y), z(z) {}
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};

namespace emulation {
struct Thread {
  uint3 index;
  int lane;
};
extern Thread* current;
extern uint3 block;
extern dim3 threads, blocks;
/* Dynamic shared memory of the block. */
extern char* shared;

void run(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& kernel);
void block_barrier();
/* Hands up to kWords words of every lane to every lane; valid until the warp's next but one exchange. */
const uint64_t* exchange(const uint64_t* words, int count, uint32_t* live = nullptr);
constexpr int kWords = 4;  // of one exchange; lane i's begin at result[kWords * i]

template <class T>
T from_lane(T value, int lane) {
  uint64_t word = 0;
  memcpy(&word, &value, sizeof value);
  const uint64_t* all = exchange(&word, 1);
  memcpy(&value, &all[kWords * (lane & 31)], sizeof value);
  return value;
}
void copy_later(void* to, const void* from, int bytes, int zeros);
void commit_copies();
void wait_copies(int groups);
}  // namespace emulation

#define threadIdx (emulation::current->index)
#define blockIdx (emulation::block)
#define blockDim (emulation::threads)
#define gridDim (emulation::blocks)

inline void __syncthreads() { emulation::block_barrier(); }
inline void __syncwarp() {
  uint64_t nothing = 0;
  emulation::exchange(&nothing, 1);
}
template <class T>
T __shfl_sync(uint32_t, T value, int lane) {
  return emulation::from_lane(value, lane);
}
template <class T>
T __shfl_xor_sync(uint32_t, T value, int mask) {
  return emulation::from_lane(value, emulation::current->lane ^ mask);
}
template <class T>
T __shfl_up_sync(uint32_t, T value, int delta) {
  const int lane = emulation::current->lane;
  return emulation::from_lane(value, lane < delta ? lane : lane - delta);
}
inline uint32_t __ballot_sync(uint32_t, bool holds) {
  uint64_t word = holds;
  uint32_t live, result = 0;
  const uint64_t* all = emulation::exchange(&word, 1, &live);
  for (int i = 0; i < 32; i++)
    if (live >> i & 1) result |= uint32_t(all[emulation::kWords * i] != 0) << i;
  return result;
}
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline int __popc(uint32_t x) { return __builtin_popcount(x); }
template <class T>
T atomicAdd(T* p, T value) {
  const T before = *p;
  *p = before + value;
  return before;
}
template <class T>
T atomicExch(T* p, T value) {
  const T before = *p;
  *p = value;
  return before;
}
inline float __uint_as_float(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}
inline uint32_t __float_as_uint(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }

/* ---- the runtime's functions --------------------------------------------------------------------------------- */

enum cudaError_t { cudaSuccess = 0, cudaErrorMemoryAllocation = 2, cudaErrorInsufficientDriver = 35, cudaErrorNoDevice = 100 };
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2 };
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};
enum { cudaStreamNonBlocking = 1, cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
struct cudaDeviceProp {
  char name[256];
};
using cudaStream_t = struct Stream*;

cudaError_t cudaMalloc(void** p, size_t bytes);
cudaError_t cudaFree(void* p);
cudaError_t cudaMallocHost(void** p, size_t bytes);
cudaError_t cudaFreeHost(void* p);
cudaError_t cudaMemGetInfo(size_t* free, size_t* total);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
inline cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t error) { return error == cudaErrorMemoryAllocation ? "out of memory" : "error"; }
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
  return memcpy(to, from, bytes), cudaSuccess;
}
inline cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                                     size_t height, cudaMemcpyKind, cudaStream_t) {
  for (size_t i = 0; i < height; i++) memcpy((char*)to + i * to_pitch, (const char*)from + i * from_pitch, width);
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* p, int byte, size_t bytes, cudaStream_t) { return memset(p, byte, bytes), cudaSuccess; }
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) { return *stream = nullptr, cudaSuccess; }
inline cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel, int, int) {
  return cudaSuccess;
}
