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
  for (int repeat = 0; repeat < 8; repeat++) {
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

/* One instruction on each of kChains accumulators: enough that none waits for its own result. */
#define TWELVE(instruction)                                                                                     \
  instruction " %12, %12, %0\n" instruction " %12, %12, %1\n" instruction " %12, %12, %2\n" instruction         \
              " %12, %12, %3\n" instruction " %12, %12, %4\n" instruction " %12, %12, %5\n" instruction         \
              " %12, %12, %6\n" instruction " %12, %12, %7\n" instruction " %12, %12, %8\n" instruction         \
              " %12, %12, %9\n" instruction " %12, %12, %10\n" instruction " %12, %12, %11\n"
#define ON_ALL(c)                                                                                                  \
  "+x"(c[0]), "+x"(c[1]), "+x"(c[2]), "+x"(c[3]), "+x"(c[4]), "+x"(c[5]), "+x"(c[6]), "+x"(c[7]), "+x"(c[8]), \
      "+x"(c[9]), "+x"(c[10]), "+x"(c[11])

static void multiply_add(int) {
#if defined(__AVX512F__)
  __m512 acc[kChains] = {}, a = _mm512_set1_ps(0.5f);
  for (int i = 0; i < kSteps; i++) asm volatile(TWELVE("vfmadd231ps") : ON_ALL(acc) : "x"(a));
#elif defined(__FMA__)
  __m256 acc[kChains] = {}, a = _mm256_set1_ps(0.5f);
  for (int i = 0; i < kSteps; i++) asm volatile(TWELVE("vfmadd231ps") : ON_ALL(acc) : "x"(a));
#else
  Vec acc[kChains] = {}, a = {0.5f};
  for (int i = 0; i < kSteps; i++)
    for (auto& each : acc) each = each * a + a;
#endif
  sink = acc[0][0] + acc[kChains - 1][0];
}

#if defined(__AVX512BF16__)
static void dot_bf16(int) {
  __m512 acc[kChains] = {}, a = _mm512_set1_ps(0.5f);
  for (int i = 0; i < kSteps; i++) asm volatile(TWELVE("vdpbf16ps") : ON_ALL(acc) : "x"(a));
  sink = acc[0][0] + acc[kChains - 1][0];
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
