// cuBLASLt, if the machine has it: found with dlopen when a device is opened, never linked. Called by linear.cu.
#pragma once
#include "context.h"

/* Looks for the library; sets ctx.blas if it is there and works. */
void open_cublaslt(Context& ctx);
void close_cublaslt(Context& ctx);

/* y = x W^T + bias with y of y_dtype. false: cuBLASLt has no algorithm for this shape, and nothing was done. */
bool multiply_cublaslt(Context& ctx, void* y, int32_t y_dtype, int64_t ldy, const Bf16* x, int64_t ldx, const Weight& w,
                       const float* bias, int t);
