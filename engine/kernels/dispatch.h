// What scripts/build.ts generates from pagestream.h: the instruction sets in ascending order of preference with their
// tables of ops, and the interpreter of one record of a command list; and the loop over the records, ps_exec.
#pragma once
#include "context.h"

extern const char* const instruction_sets[];  // ends with nullptr
extern const Ops* const op_tables[];
extern const char* const op_names[];
extern const uint32_t op_count;

void run_op(Context& ctx, uint32_t op, uint32_t words, const uint64_t* args);

inline float as_float(uint64_t bits) {
  uint32_t low = uint32_t(bits);
  float value;
  memcpy(&value, &low, sizeof value);
  return value;
}

inline int32_t run_commands(ps_ctx ctx, ps_stream s, const void* records, uint64_t bytes) {
  const char* name = "ps_exec";
  int index = 0;
  try {
    Context& c = enter(ctx, s);
    const char* end = static_cast<const char*>(records) + bytes;
    for (const char* at = static_cast<const char*>(records); at < end; index++) {
      struct {
        uint32_t op, words;
      } head;
      if (uint64_t(end - at) < sizeof head) throw Error(PS_E_INVALID, "record %d is cut off", index);
      memcpy(&head, at, sizeof head);
      at += sizeof head;
      if (head.op >= op_count) throw Error(PS_E_INVALID, "record %d: there is no op %u", index, head.op);
      if (uint64_t(end - at) / 8 < head.words) throw Error(PS_E_INVALID, "record %d is cut off", index);
      name = op_names[head.op];
      run_op(c, head.op, head.words, reinterpret_cast<const uint64_t*>(at));
      name = "ps_exec";
      at += 8 * uint64_t(head.words);
    }
    return PS_OK;
  } catch (const Error& error) {
    return report(name, Error(error.code, "%s (record %d)", error.text, index));
  } catch (const std::exception& error) {
    return report(name, Error(PS_E_OOM, "%s (record %d)", error.what(), index));
  }
}
