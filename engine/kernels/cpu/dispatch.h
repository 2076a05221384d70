// What scripts/build.ts generates from pagestream.h: the instruction sets in ascending order of preference with their
// tables of ops, and the interpreter of one record of a command list.
#pragma once
#include "context.h"

extern const char* const instruction_sets[];  // ends with nullptr
extern const Ops* const op_tables[];
extern const char* const op_names[];
extern const uint32_t op_count;

void run_op(Context& ctx, uint32_t op, uint32_t words, const uint64_t* args);
