// Contexts, memory and streams of a GPU.
#include <algorithm>

#include "cublaslt.h"
#include "dispatch.h"
#include "options.h"

/* The numerics id: counted up whenever an op's bits change. */
static constexpr int kNumerics = 1;

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  if (error == cudaErrorInsufficientDriver || error == cudaErrorNoDevice)
    throw Error(PS_E_NODEVICE, "no NVIDIA GPU with a driver for CUDA 13 here (%s: %s)", what, cudaGetErrorString(error));
  throw Error(error == cudaErrorMemoryAllocation ? PS_E_OOM : PS_E_DRIVER, "%s: %s", what, cudaGetErrorString(error));
}

void* Context::allocate(uint64_t bytes) {
  void* p = nullptr;
  const cudaError_t error = cudaMalloc(&p, bytes ? bytes : 1);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw Error(PS_E_OOM, "no memory for %llu bytes", (unsigned long long)bytes);
  }
  check(error, "cudaMalloc");
  check(cudaMemsetAsync(p, 0, bytes, nullptr), "cudaMemsetAsync");
  check(cudaStreamSynchronize(nullptr), "cudaStreamSynchronize");
  std::lock_guard<std::mutex> lock(mutex_);
  sizes_[uint64_t(p)] = bytes;
  return p;
}

bool Context::release(void* p) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (sizes_.erase(uint64_t(p)) == 0) return false;
  check(cudaFree(p), "cudaFree");
  return true;
}

bool Context::contains(uint64_t address, uint64_t bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  auto after = sizes_.upper_bound(address);
  if (after == sizes_.begin()) return false;
  auto [begin, size] = *--after;
  return address - begin <= size && bytes <= size - (address - begin);
}

void Context::outside(const char* name, ps_ptr p, uint64_t bytes) {
  throw Error(PS_E_INVALID, "%s: %llu bytes at 0x%llx are not inside one allocation", name, (unsigned long long)bytes,
              (unsigned long long)p);
}

void Context::download(void* to, const void* from, size_t bytes) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream), "cudaMemcpyAsync");
  check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
}

void Context::check_indices(const char* name, const int32_t* values, int64_t count, int64_t limit) {
  if (!debug) return;
  const std::vector<int32_t> host = fetch(values, count);
  for (int64_t i = 0; i < count; i++)
    if (host[i] < 0 || host[i] >= limit)
      throw Error(PS_E_INVALID, "%s[%lld] is %d, not below %lld", name, (long long)i, host[i], (long long)limit);
}

void* Context::grow_scratch(size_t bytes) {
  Scratch& own = scratch_[stream];
  if (bytes > own.bytes) {
    if (own.data) {
      check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
      release(own.data);
    }
    own = {};
    own.data = allocate(bytes);
    own.bytes = bytes;
  }
  return own.data;
}

Context::~Context() {
  close_cublaslt(*this);
  for (auto [address, size] : sizes_) cudaFree(reinterpret_cast<void*>(address));
}

int32_t ps_abi_version(void) { return PS_ABI_VERSION; }
const char* ps_last_error(void) { return last_error; }

static int attribute(cudaDeviceAttr name, int device) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, name, device), "cudaDeviceGetAttribute");
  return value;
}

int32_t ps_ctx_create(int32_t device, const char* options, uint64_t* out_ctx) {
  return guarded("ps_ctx_create", [&] {
    int count = 0;
    check(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
    if (device < 0 || device >= count) throw Error(PS_E_NODEVICE, "device %d; this machine has %d", device, count);
    check(cudaSetDevice(device), "cudaSetDevice");
    const int capability = 10 * attribute(cudaDevAttrComputeCapabilityMajor, device) +
                           attribute(cudaDevAttrComputeCapabilityMinor, device);
    if (capability < 80)
      throw Error(PS_E_UNSUPPORTED, "the GPU has compute capability %d.%d; 8.0 (Ampere) is the least", capability / 10,
                  capability % 10);
    Context* c = new Context{};
    c->ops = op_tables[0];
    c->device = device;
    c->debug = option(options, "debug", "false") == "true";
    c->deterministic = option(options, "deterministic", "false") == "true";
    c->capability = capability;
    c->processors = attribute(cudaDevAttrMultiProcessorCount, device);
    c->max_shared = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    if (!c->deterministic) open_cublaslt(*c);
    *out_ctx = (uint64_t)c;
  });
}

int32_t ps_ctx_destroy(ps_ctx ctx) {
  return guarded("ps_ctx_destroy", [&] { delete &enter(ctx, 0); });
}

int32_t ps_device_info(ps_ctx ctx, char* out, int32_t capacity) {
  return guarded("ps_device_info", [&] {
    Context& c = enter(ctx, 0);
    cudaDeviceProp properties;
    check(cudaGetDeviceProperties(&properties, c.device), "cudaGetDeviceProperties");
    // Which algorithm cuBLASLt takes depends on the GPU; in deterministic mode only the instructions count.
    const char* linear = c.deterministic ? "deterministic" : c.blas ? "cublaslt" : "own";
    const int length = snprintf(
        out, capacity, "{\"abi\":%d,\"isa\":\"sm_%d\",\"name\":\"%s\",\"cores\":%d,\"numerics\":\"%s%d-sm_%d-%s\"}",
        PS_ABI_VERSION, c.capability, properties.name, c.processors, instruction_sets[0], kNumerics, c.capability, linear);
    if (length >= capacity) throw Error(PS_E_INVALID, "capacity is %d, the text takes %d", capacity, length + 1);
  });
}

int32_t ps_mem_info(ps_ctx ctx, uint64_t* out_free, uint64_t* out_total) {
  return guarded("ps_mem_info", [&] {
    enter(ctx, 0);
    size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    *out_free = free;
    *out_total = total;
  });
}

int32_t ps_malloc(ps_ctx ctx, uint64_t bytes, uint64_t* out_ptr) {
  return guarded("ps_malloc", [&] { *out_ptr = (uint64_t)enter(ctx, 0).allocate(bytes); });
}

int32_t ps_free(ps_ctx ctx, ps_ptr p) {
  return guarded("ps_free", [&] {
    if (p && !enter(ctx, 0).release((void*)p))
      throw Error(PS_E_INVALID, "0x%llx is not the address of an allocation", (unsigned long long)p);
  });
}

int32_t ps_host_alloc(ps_ctx ctx, uint64_t bytes, uint64_t* out_ptr) {
  return guarded("ps_host_alloc", [&] {
    enter(ctx, 0);
    void* p = nullptr;
    check(cudaMallocHost(&p, bytes ? bytes : 1), "cudaMallocHost");
    memset(p, 0, bytes);
    *out_ptr = (uint64_t)p;
  });
}

int32_t ps_host_free(ps_ctx ctx, ps_ptr p) {
  return guarded("ps_host_free", [&] {
    enter(ctx, 0);
    check(cudaFreeHost((void*)p), "cudaFreeHost");
  });
}

int32_t ps_memcpy_h2d(ps_ctx ctx, ps_stream s, ps_ptr dst, const void* src, uint64_t bytes) {
  return guarded("ps_memcpy_h2d", [&] {
    Context& c = enter(ctx, s);
    check(cudaMemcpyAsync(c.tensor<char>("dst", dst, bytes), src, bytes, cudaMemcpyHostToDevice, c.stream), "cudaMemcpy");
  });
}

int32_t ps_memcpy_d2h(ps_ctx ctx, ps_stream s, void* dst, ps_ptr src, uint64_t bytes) {
  return guarded("ps_memcpy_d2h", [&] {
    Context& c = enter(ctx, s);
    check(cudaMemcpyAsync(dst, c.tensor<char>("src", src, bytes), bytes, cudaMemcpyDeviceToHost, c.stream), "cudaMemcpy");
  });
}

int32_t ps_stream_create(ps_ctx ctx, uint64_t* out_stream) {
  return guarded("ps_stream_create", [&] {
    enter(ctx, 0);
    cudaStream_t stream = nullptr;
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
    *out_stream = (uint64_t)stream;
  });
}

int32_t ps_stream_destroy(ps_ctx ctx, ps_stream s) {
  return guarded("ps_stream_destroy", [&] {
    Context& c = enter(ctx, s);
    if (c.stream) check(cudaStreamDestroy(c.stream), "cudaStreamDestroy");
  });
}

int32_t ps_stream_sync(ps_ctx ctx, ps_stream s) {
  return guarded("ps_stream_sync", [&] { check(cudaStreamSynchronize(enter(ctx, s).stream), "cudaStreamSynchronize"); });
}

int32_t ps_exec(ps_ctx ctx, ps_stream s, const void* records, uint64_t bytes) {
  return run_commands(ctx, s, records, bytes);
}
