// What a ps_ctx is on a GPU, how kernels are launched, and the checks of debug mode. Included by every file. Compiles
// with nvcc, and with g++ against emulation/cuda_runtime.h.
#pragma once
#include <cuda_runtime.h>

#include <map>
#include <mutex>
#include <vector>

#include "error.h"
#include "half.h"
#include "ops.h"
#include "pagestream.h"

/* Throws unless a call of the runtime succeeded. */
void check(cudaError_t error, const char* what);

struct Context {
  const Ops* ops;
  int device;
  bool debug;
  bool deterministic;  // the same bits whatever the batch, at some cost in ps_linear
  int processors;      // streaming multiprocessors
  int max_shared;      // bytes of shared memory that a block may have
  int capability;      // 10 major + minor
  cudaStream_t stream = nullptr;  // of the op that runs
  void* blas = nullptr;           // cublaslt.cu

  /* Memory of an op for its own run, of its stream; grows to the largest wish, so steps allocate nothing once warm. */
  template <class T>
  T* scratch(size_t count) {
    return static_cast<T*>(grow_scratch(count * sizeof(T)));
  }

  /* Zeroed; throws PS_E_OOM. */
  void* allocate(uint64_t bytes);
  bool release(void* p);

  /* Debug mode: [p, p + count) lies inside one allocation. */
  template <class T>
  T* tensor(const char* name, ps_ptr p, int64_t count) {
    if (debug && !contains(p, uint64_t(count) * sizeof(T))) outside(name, p, count * sizeof(T));
    return reinterpret_cast<T*>(p);
  }
  bool contains(uint64_t address, uint64_t bytes);

  /* Debug mode: every index of values[count] is in [0, limit). Waits for the stream. */
  void check_indices(const char* name, const int32_t* values, int64_t count, int64_t limit);
  /* Debug mode: what is on the device. */
  template <class T>
  std::vector<T> fetch(const T* p, int64_t count) {
    std::vector<T> host(count);
    download(host.data(), p, count * sizeof(T));
    return host;
  }

  ~Context();

 private:
  void* grow_scratch(size_t bytes);
  void download(void* to, const void* from, size_t bytes);
  [[noreturn]] void outside(const char* name, ps_ptr p, uint64_t bytes);
  struct Scratch {
    void* data = nullptr;
    size_t bytes = 0;
  };
  std::mutex mutex_;
  std::map<uint64_t, uint64_t> sizes_;
  std::map<cudaStream_t, Scratch> scratch_;
};

/* A matrix [n, k], row-major as in a checkpoint, rows `ld` elements apart: k rounded up to kStep, filled with zeros. */
struct Weight {
  static constexpr int kStep = 64;
  int32_t n, k, dtype;
  int64_t ld;
  uint64_t bytes;
  char* data;

  template <class T>
  const T* as() const {
    return reinterpret_cast<const T*>(data);
  }
};

inline Context& context(ps_ctx ctx) {
  if (!ctx) throw Error(PS_E_INVALID, "ctx is 0");
  return *reinterpret_cast<Context*>(ctx);
}

/* Where an exported function begins: the current device is a property of the calling thread. */
inline Context& enter(ps_ctx ctx, ps_stream s) {
  Context& c = context(ctx);
  check(cudaSetDevice(c.device), "cudaSetDevice");
  c.stream = reinterpret_cast<cudaStream_t>(s);
  return c;
}

inline const Weight& weight(ps_weight w) {
  if (!w) throw Error(PS_E_INVALID, "the weight is 0");
  return *reinterpret_cast<Weight*>(w);
}

/* run(T()) with the type of activations. */
template <class Run>
void with_activations(int32_t dtype, Run run) {
  if (dtype == PS_F32) return run(float());
  if (dtype == PS_BF16) return run(Bf16());
  throw Error(PS_E_UNSUPPORTED, "activations are f32 (0) or bf16 (2) on a GPU, not dtype %d", dtype);
}

/* run(T()) with the type of the cache. */
template <class Run>
void with_cache(int32_t kv_dtype, Run run) {
  if (kv_dtype == PS_F32) return run(float());
  if (kv_dtype == PS_BF16) return run(Bf16());
  if (kv_dtype == PS_F16) return run(Half());
  throw Error(PS_E_UNSUPPORTED, "kv_dtype %d; the cache is f32, f16 or bf16", kv_dtype);
}

/* Starts a kernel on the stream of the op; nothing for an empty grid. */
template <class... P, class... A>
void launch(Context& ctx, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, A... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  if (shared > 48 << 10)
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared)), "shared memory");
#ifdef PS_EMULATION
  (void)ctx;
  emulation::run(grid, block, shared, [=] { kernel(P(args)...); });
#else
  kernel<<<grid, block, shared, ctx.stream>>>(P(args)...);
  check(cudaGetLastError(), "launch");
#endif
}

/* The block's dynamic shared memory, in a kernel. */
#ifdef PS_EMULATION
#define PS_SHARED(name) char* const name = emulation::shared
#else
#define PS_SHARED(name) extern __shared__ __align__(16) char name[]
#endif

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
