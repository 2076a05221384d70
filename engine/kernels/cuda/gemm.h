// The products behind ps_linear (linear.cu chooses): y [t, n] = x [t, k] W^T + bias, W and x with rows of whole steps.
#pragma once
#include "context.h"

/* Fixed tiles on tensor cores: one accumulator per output, k ascending in steps of 16, whatever t is. */
template <class Y>
void multiply_tiles(Context& ctx, Y* y, int64_t ldy, const Bf16* x, int64_t ldx, const Weight& w, const float* bias, int t);

/* A warp per two outputs, for up to kMaxVectorRows rows of x. */
constexpr int kMaxVectorRows = 8;
template <class Y>
void multiply_vectors(Context& ctx, Y* y, int64_t ldy, const Bf16* x, int64_t ldx, const Weight& w, const float* bias, int t);
