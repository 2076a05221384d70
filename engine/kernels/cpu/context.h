// What a ps_ctx is on the CPU, the errors of all functions, and the checks of debug mode. Included by every file.
#pragma once
#include "error.h"
#include "memory.h"
#include "ops.h"
#include "pagestream.h"
#include "pool.h"

struct Context {
  const Ops* ops;
  const char* isa;
  bool debug;
  Memory memory;
  Pool pool;

  Context(const Ops* ops, const char* isa, bool debug, int threads) : ops(ops), isa(isa), debug(debug), pool(threads) {}

  /* Memory of an op for its own run; grows to the largest wish, so that steps allocate nothing once warm. */
  template <class T>
  T* scratch(size_t count) {
    return static_cast<T*>(grow_scratch(count * sizeof(T)));
  }

  /* Debug mode: [p, p + count) lies inside one allocation. */
  template <class T>
  T* tensor(const char* name, ps_ptr p, int64_t count) {
    if (debug && !memory.contains(p, uint64_t(count) * sizeof(T))) outside(name, p, count * sizeof(T));
    return reinterpret_cast<T*>(p);
  }

  /* Debug mode: every index of values[count] is in [0, limit). */
  void check_indices(const char* name, const int32_t* values, int64_t count, int64_t limit) {
    if (!debug) return;
    for (int64_t i = 0; i < count; i++)
      if (values[i] < 0 || values[i] >= limit)
        throw Error(PS_E_INVALID, "%s[%lld] is %d, not below %lld", name, (long long)i, values[i], (long long)limit);
  }

 private:
  void* grow_scratch(size_t bytes);
  [[noreturn]] void outside(const char* name, ps_ptr p, uint64_t bytes);
  void* scratch_ = nullptr;
  size_t scratch_bytes_ = 0;
};

/* A matrix [n, k] cut in panels of kPanel rows; weight.cpp has the layout. */
constexpr int kPanel = 32;

struct Weight {
  int32_t n, k, dtype;
  uint64_t panel_bytes;
  uint64_t bytes;
  char* data;

  int32_t panels() const { return (n + kPanel - 1) / kPanel; }
  const char* panel(int64_t p) const { return data + p * panel_bytes; }
};

inline Context& context(ps_ctx ctx) {
  if (!ctx) throw Error(PS_E_INVALID, "ctx is 0");
  return *reinterpret_cast<Context*>(ctx);
}

/* Where an exported op begins. */
inline Context& enter(ps_ctx ctx, ps_stream) { return context(ctx); }

inline const Weight& weight(ps_weight w) {
  if (!w) throw Error(PS_E_INVALID, "the weight is 0");
  return *reinterpret_cast<Weight*>(w);
}

inline void require_f32(int32_t dtype) {
  if (dtype != PS_F32) throw Error(PS_E_UNSUPPORTED, "activations are f32 on the CPU, not dtype %d", dtype);
}
