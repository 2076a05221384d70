// Contexts, memory, streams, errors and the command list. Which instruction set runs is decided here, once per context.
#include <sys/syscall.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <string>

#include "dispatch.h"

/* The numerics id: counted up whenever an op's bits change. Instruction sets give the same (simd.h), but for those that
 * have instructions for bf16. */
static constexpr int kNumerics = 1;

static std::string numerics(const std::string& isa) {
  const bool has_bf16 = isa == "avx512_bf16" || isa == "amx";
  return "cpu" + std::to_string(kNumerics) + (has_bf16 ? "-" + isa : "");
}

static thread_local char last_error[480] = "";

int32_t report(const char* function, const Error& error) {
  snprintf(last_error, sizeof last_error, "%s: %s", function, error.text);
  return error.code;
}

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

#if defined(__x86_64__)
/* AMX with bf16 and int8. Linux gives its registers to processes that ask: https://docs.kernel.org/arch/x86/xstate.html */
static bool has_tiles() {
  constexpr uint32_t kTiles = 1u << 24, kInt8 = 1u << 25, kBf16 = 1u << 22, kAll = kTiles | kInt8 | kBf16;
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  uint32_t eax, ebx, ecx, edx;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (edx & kAll) == kAll &&
         syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#endif

static bool machine_has(const char* isa) {
#if defined(__x86_64__)
  if (!strcmp(isa, "avx2"))
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  if (!strcmp(isa, "avx512"))
    return machine_has("avx2") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (!strcmp(isa, "avx512_vnni")) return machine_has("avx512") && __builtin_cpu_supports("avx512vnni");
  if (!strcmp(isa, "avx512_bf16")) return machine_has("avx512_vnni") && __builtin_cpu_supports("avx512bf16");
  if (!strcmp(isa, "amx")) return machine_has("avx512_bf16") && has_tiles();
#endif
  return !strcmp(isa, "plain");
}

/* The value of "name" in one flat JSON object of numbers, booleans and strings without escapes: our own caller's. */
static std::string option(const char* json, const char* name, const char* otherwise) {
  const std::string key = std::string("\"") + name + "\":";
  const char* found = json ? strstr(json, key.c_str()) : nullptr;
  if (!found) return otherwise;
  found += key.size();
  while (*found == ' ' || *found == '"') found++;
  return std::string(found, strcspn(found, ",\"} "));
}

/* vdpbf16ps is twice as fast as fused multiply-adds on widened pairs where AMD makes the processor, and half as fast
 * where Intel does (222 against 430 GFLOP/s measured on two cores of a Xeon). */
static bool is_worthwhile(const char* isa) {
#if defined(__x86_64__)
  if (!strcmp(isa, "avx512_bf16")) return __builtin_cpu_is("amd");
#endif
  return isa != nullptr;
}

static int choose_isa(const std::string& wanted) {
  int chosen = -1;
  std::string known;
  for (int i = 0; instruction_sets[i]; i++) {
    known += std::string(known.empty() ? "" : ", ") + instruction_sets[i];
    const bool is_wanted = wanted == "auto" ? is_worthwhile(instruction_sets[i]) : wanted == instruction_sets[i];
    if (is_wanted && machine_has(instruction_sets[i])) chosen = i;
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
        out, capacity, "{\"abi\":%d,\"isa\":\"%s\",\"name\":\"%s\",\"cores\":%d,\"numerics\":\"%s\"}",
        PS_ABI_VERSION, c.isa, processor_name().c_str(), c.pool.threads(), numerics(c.isa).c_str());
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

int32_t ps_exec(ps_ctx ctx, ps_stream, const void* records, uint64_t bytes) {
  const char* name = "ps_exec";
  int index = 0;
  try {
    Context& c = context(ctx);
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
