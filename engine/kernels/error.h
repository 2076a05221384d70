// Errors of both libraries: thrown inside, caught at the border, kept as text for ps_last_error().
#pragma once
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>

#include "pagestream.h"

/* Thrown by ops before they start, caught at the border (guarded, run_commands), never in a thread of the pool. */
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

inline thread_local char last_error[480] = "";

/* Sets the text that ps_last_error() gives; returns the code. */
inline int32_t report(const char* function, const Error& error) {
  snprintf(last_error, sizeof last_error, "%s: %s", function, error.text);
  return error.code;
}

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
