// What this machine can do at most, for scripts/bench/kernels.ts: fused multiply-adds of f32 and products of bf16 with
// all operands in registers, and reading memory, on the given number of threads. Prints JSON.
#include <sys/mman.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <thread>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

using Vec = float __attribute__((vector_size(64)));
static volatile float sink;

static double seconds_of(int threads, const std::function<void(int)>& work) {
  double best = 1e9;
  for (int repeat = 0; repeat < 3; repeat++) {
    const auto began = std::chrono::steady_clock::now();
    std::vector<std::thread> running;
    for (int i = 0; i < threads; i++) running.emplace_back(work, i);
    for (auto& thread : running) thread.join();
    const double took = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
    if (took < best) best = took;
  }
  return best;
}

static constexpr int kChains = 12, kSteps = 1 << 22;

/* kChains independent chains: step(accumulator) must be one instruction. */
template <class Acc, class Step>
static void chains(Acc start, Step step) {
  Acc acc[kChains];
  for (auto& each : acc) each = start;
  for (int i = 0; i < kSteps; i++)
#pragma GCC unroll 12
    for (auto& each : acc) step(each);
  for (auto& each : acc) sink = each[0];
}

static void multiply_add(int) {
#if defined(__AVX512F__)
  const __m512 a = _mm512_set1_ps(0.5f);
  chains(a, [&](__m512& acc) { asm volatile("vfmadd231ps %1, %1, %0" : "+v"(acc) : "v"(a)); });
#elif defined(__FMA__)
  const __m256 a = _mm256_set1_ps(0.5f);
  chains(a, [&](__m256& acc) { asm volatile("vfmadd231ps %1, %1, %0" : "+x"(acc) : "x"(a)); });
#else
  const Vec a = {0.5f};
  chains(a, [&](Vec& acc) { acc = acc * a + a; });
#endif
}

#if defined(__AVX512BF16__)
static void dot_bf16(int) {
  const __m512 a = _mm512_set1_ps(0.5f);
  chains(a, [&](__m512& acc) { asm volatile("vdpbf16ps %1, %1, %0" : "+v"(acc) : "v"(a)); });
}
#endif

#if defined(__AVX512F__) || !defined(__FMA__)
static constexpr int kVecLanes = 16;
#else
static constexpr int kVecLanes = 8;
#endif

int main(int, char** argv) {
  const int threads = atoi(argv[1]);
  const double flops = 2.0 * kVecLanes * kChains * kSteps * threads;
  const double f32 = flops / seconds_of(threads, multiply_add) / 1e9;
  double bf16 = f32;
#if defined(__AVX512BF16__)
  bf16 = 2 * flops / seconds_of(threads, dot_bf16) / 1e9;
#endif
  const size_t bytes = size_t(512) << 20;
  char* memory = (char*)mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  madvise(memory, bytes, MADV_HUGEPAGE);
  for (size_t i = 0; i < bytes; i += 4096) memory[i] = 1;
  const double took = seconds_of(threads, [&](int thread) {
    const size_t share = bytes / threads / 64;
    const Vec* from = (const Vec*)memory + thread * share;
    Vec acc[4] = {};
    for (size_t i = 0; i + 4 <= share; i += 4)
      for (int j = 0; j < 4; j++) acc[j] += from[i + j];
    for (auto& each : acc) sink = each[0];
  });
  printf("{\"f32\":%.1f,\"bf16\":%.1f,\"read\":%.1f}\n", f32, bf16, bytes / took / 1e9);
}
