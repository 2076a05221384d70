// Contexts, memory and streams. Which instruction set runs is decided here, once per context.
#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <string>

#include "dispatch.h"
#include "options.h"

/* The numerics id: counted up whenever an op's bits change. All instruction sets give the same (simd.h). */
static constexpr int kNumerics = 1;

void* Context::grow_scratch(size_t bytes) {
  if (bytes > scratch_bytes_) {
    if (scratch_) memory.release(scratch_);
    scratch_ = memory.allocate(bytes);
    scratch_bytes_ = scratch_ ? bytes : 0;
    if (!scratch_) throw Error(PS_E_OOM, "no memory for %zu bytes of scratch", bytes);
  }
  return scratch_;
}

void Context::outside(const char* name, ps_ptr p, uint64_t bytes) {
  throw Error(PS_E_INVALID, "%s: %llu bytes at 0x%llx are not inside one allocation", name, (unsigned long long)bytes,
              (unsigned long long)p);
}

static bool machine_has(const char* isa) {
#if defined(__x86_64__)
  if (!strcmp(isa, "avx2"))
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  if (!strcmp(isa, "avx512"))
    return machine_has("avx2") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
#endif
  return !strcmp(isa, "plain");
}

static int choose_isa(const std::string& wanted) {
  int chosen = -1;
  std::string known;
  for (int i = 0; instruction_sets[i]; i++) {
    known += std::string(known.empty() ? "" : ", ") + instruction_sets[i];
    if ((wanted == "auto" || wanted == instruction_sets[i]) && machine_has(instruction_sets[i])) chosen = i;
    if (wanted == instruction_sets[i] && chosen != i)
      throw Error(PS_E_UNSUPPORTED, "this machine has no %s; use isa auto", wanted.c_str());
  }
  if (chosen < 0) throw Error(PS_E_INVALID, "isa is %s; this library has auto, %s", wanted.c_str(), known.c_str());
  return chosen;
}

/* Cores that this process may run on and, in a container, may use up. */
static int available_cores() {
  int cores = std::max(1u, std::thread::hardware_concurrency());
  long long quota, period;
  if (FILE* file = fopen("/sys/fs/cgroup/cpu.max", "r")) {  // "max 100000" or "200000 100000"
    if (fscanf(file, "%lld %lld", &quota, &period) == 2 && period > 0)
      cores = std::max(1, std::min<int>(cores, int((quota + period - 1) / period)));
    fclose(file);
  }
  return cores;
}

int32_t ps_abi_version(void) { return PS_ABI_VERSION; }
const char* ps_last_error(void) { return last_error; }

int32_t ps_ctx_create(int32_t device, const char* options, uint64_t* out_ctx) {
  return guarded("ps_ctx_create", [&] {
    if (device != 0) throw Error(PS_E_NODEVICE, "device %d; the CPU is device 0", device);
    const int isa = choose_isa(option(options, "isa", "auto"));
    const int wanted = atoi(option(options, "threads", "0").c_str());
    if (wanted < 0 || wanted > 1024) throw Error(PS_E_INVALID, "threads is %d, not in 0..1024", wanted);
    const int threads = wanted > 0 ? wanted : available_cores();
    const bool debug = option(options, "debug", "false") == "true";
    *out_ctx = (uint64_t) new Context(op_tables[isa], instruction_sets[isa], debug, threads);
  });
}

int32_t ps_ctx_destroy(ps_ctx ctx) {
  return guarded("ps_ctx_destroy", [&] { delete &context(ctx); });
}

static std::string processor_name() {
  FILE* file = fopen("/proc/cpuinfo", "r");
  char line[256];
  std::string name;
  while (file && name.empty() && fgets(line, sizeof line, file))
    if (!strncmp(line, "model name", 10) && strchr(line, ':')) name = strchr(line, ':') + 2;
  if (file) fclose(file);
  const auto breaks_json = [](char c) { return c < ' ' || c == '"' || c == '\\'; };
  name.erase(std::remove_if(name.begin(), name.end(), breaks_json), name.end());
  return name.empty() ? "CPU" : name;
}

int32_t ps_device_info(ps_ctx ctx, char* out, int32_t capacity) {
  return guarded("ps_device_info", [&] {
    Context& c = context(ctx);
    const int length = snprintf(
        out, capacity, "{\"abi\":%d,\"isa\":\"%s\",\"name\":\"%s\",\"cores\":%d,\"numerics\":\"cpu%d\"}",
        PS_ABI_VERSION, c.isa, processor_name().c_str(), c.pool.threads(), kNumerics);
    if (length >= capacity) throw Error(PS_E_INVALID, "capacity is %d, the text takes %d", capacity, length + 1);
  });
}

int32_t ps_mem_info(ps_ctx ctx, uint64_t* out_free, uint64_t* out_total) {
  return guarded("ps_mem_info", [&] {
    context(ctx);
    system_memory(*out_free, *out_total);
  });
}

int32_t ps_malloc(ps_ctx ctx, uint64_t bytes, uint64_t* out_ptr) {
  return guarded("ps_malloc", [&] {
    void* p = context(ctx).memory.allocate(bytes);
    if (!p) throw Error(PS_E_OOM, "no memory for %llu bytes", (unsigned long long)bytes);
    *out_ptr = (uint64_t)p;
  });
}

int32_t ps_free(ps_ctx ctx, ps_ptr p) {
  return guarded("ps_free", [&] {
    if (p && !context(ctx).memory.release((void*)p))
      throw Error(PS_E_INVALID, "0x%llx is not the address of an allocation", (unsigned long long)p);
  });
}

int32_t ps_host_alloc(ps_ctx ctx, uint64_t bytes, uint64_t* out_ptr) { return ps_malloc(ctx, bytes, out_ptr); }
int32_t ps_host_free(ps_ctx ctx, ps_ptr p) { return ps_free(ctx, p); }

int32_t ps_memcpy_h2d(ps_ctx ctx, ps_stream, ps_ptr dst, const void* src, uint64_t bytes) {
  return guarded("ps_memcpy_h2d", [&] { memcpy(context(ctx).tensor<char>("dst", dst, bytes), src, bytes); });
}

int32_t ps_memcpy_d2h(ps_ctx ctx, ps_stream, void* dst, ps_ptr src, uint64_t bytes) {
  return guarded("ps_memcpy_d2h", [&] { memcpy(dst, context(ctx).tensor<char>("src", src, bytes), bytes); });
}

int32_t ps_stream_create(ps_ctx ctx, uint64_t* out_stream) {
  return guarded("ps_stream_create", [&] {
    context(ctx);
    *out_stream = 0;
  });
}

int32_t ps_stream_destroy(ps_ctx ctx, ps_stream) {
  return guarded("ps_stream_destroy", [&] { context(ctx); });
}

int32_t ps_stream_sync(ps_ctx ctx, ps_stream) {
  return guarded("ps_stream_sync", [&] { context(ctx); });
}

int32_t ps_exec(ps_ctx ctx, ps_stream s, const void* records, uint64_t bytes) {
  return run_commands(ctx, s, records, bytes);
}
