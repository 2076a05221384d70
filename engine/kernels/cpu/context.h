// What a ps_ctx is on the CPU, the errors of all functions, and the checks of debug mode. Included by every file.
#pragma once
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <exception>

#include "memory.h"
#include "ops.h"
#include "pagestream.h"
#include "pool.h"

/* Thrown by ops before they start, caught at the border (guarded, ps_exec), never in a thread of the pool. */
struct Error {
  int32_t code;
  char text[400];

  [[gnu::format(printf, 3, 4)]] Error(int32_t code, const char* format, ...) : code(code) {
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
  }
};

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
constexpr int kStepBytes = kPanel * 4;
/* Steps of a tile of AMX. */
constexpr int kTileSteps = 16;

/* Of an int8 panel. The offset is what a sum is too large by if kInt8Offset was added to every number of x. */
constexpr int kInt8Offset = 128;
struct Scales {
  float scale[kPanel];
  int32_t offset[kPanel];
};

struct Weight {
  int32_t n, k, dtype;
  int32_t steps;
  uint64_t panel_bytes;
  uint64_t bytes;
  char* data;

  int32_t panels() const { return (n + kPanel - 1) / kPanel; }
  const char* panel(int64_t p) const { return data + p * panel_bytes; }
  const Scales& scales(int64_t p) const {
    return *reinterpret_cast<const Scales*>(panel(p) + int64_t(steps) * kStepBytes);
  }
};

inline Context& context(ps_ctx ctx) {
  if (!ctx) throw Error(PS_E_INVALID, "ctx is 0");
  return *reinterpret_cast<Context*>(ctx);
}

inline const Weight& weight(ps_weight w) {
  if (!w) throw Error(PS_E_INVALID, "the weight is 0");
  return *reinterpret_cast<Weight*>(w);
}

/* Sets the text that ps_last_error() gives; returns the code. */
int32_t report(const char* function, const Error& error);

template <class Action>
int32_t guarded(const char* function, Action action) {
  try {
    action();
    return PS_OK;
  } catch (const Error& error) {
    return report(function, error);
  } catch (const std::exception& error) {  // of the C++ library: no memory, no more threads
    return report(function, Error(PS_E_OOM, "%s", error.what()));
  }
}

inline void require(bool holds, const char* what) {
  if (!holds) throw Error(PS_E_INVALID, "must hold: %s", what);
}

inline void require_f32(int32_t dtype) {
  if (dtype != PS_F32) throw Error(PS_E_UNSUPPORTED, "activations are f32 on the CPU, not dtype %d", dtype);
}

inline float as_float(uint64_t bits) {
  uint32_t low = uint32_t(bits);
  float value;
  memcpy(&value, &low, sizeof value);
  return value;
}
