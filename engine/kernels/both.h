// PS_BOTH: functions for both libraries, compiled for the host and, by nvcc, for the GPU too.
#pragma once
#ifdef __CUDACC__
#define PS_BOTH __host__ __device__ inline
#else
#define PS_BOTH inline
#endif
