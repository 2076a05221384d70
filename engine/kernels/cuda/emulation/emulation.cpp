// Runs the threads of a block as fibres: each has a stack of its own and runs until it waits at a barrier or ends. When
// none can run and some have not ended, they wait at different barriers: the kernel is wrong, and the process ends.
#include <cuda_runtime.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <map>
#include <mutex>
#include <vector>

namespace emulation {

Thread* current;
uint3 block;
dim3 threads, blocks;
char* shared;

constexpr size_t kStack = 64 << 10;

/* Saves the registers that a call keeps on the stack in use, leaves its top in *from, and goes on where `to` left. */
extern "C" void emulation_switch(void** from, void* to);
#if defined(__x86_64__)
asm(".text\nemulation_switch:\n"
    "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
    "mov %rsp,(%rdi)\nmov %rsi,%rsp\n"
    "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n");
constexpr int kReturn = 6, kFrame = 8;
#elif defined(__aarch64__)
asm(".text\nemulation_switch:\n"
    "sub sp,sp,#160\nstp x19,x20,[sp]\nstp x21,x22,[sp,#16]\nstp x23,x24,[sp,#32]\nstp x25,x26,[sp,#48]\n"
    "stp x27,x28,[sp,#64]\nstp x29,x30,[sp,#80]\nstp d8,d9,[sp,#96]\nstp d10,d11,[sp,#112]\n"
    "stp d12,d13,[sp,#128]\nstp d14,d15,[sp,#144]\nmov x2,sp\nstr x2,[x0]\nmov sp,x1\n"
    "ldp x19,x20,[sp]\nldp x21,x22,[sp,#16]\nldp x23,x24,[sp,#32]\nldp x25,x26,[sp,#48]\n"
    "ldp x27,x28,[sp,#64]\nldp x29,x30,[sp,#80]\nldp d8,d9,[sp,#96]\nldp d10,d11,[sp,#112]\n"
    "ldp d12,d13,[sp,#128]\nldp d14,d15,[sp,#144]\nadd sp,sp,#160\nret\n");
constexpr int kReturn = 11, kFrame = 20;
#endif

struct Barrier {
  uint32_t generation = 0;
  int arrived = 0, expected = 0;
};

struct Copy {
  void* to;
  const void* from;
  int bytes, zeros;
};

struct Warp {
  Barrier barrier;
  uint32_t live = 0;
  uint64_t words[2][32 * kWords];
};

struct Fiber : Thread {
  void* stack_top;
  bool ended;
  const Barrier* waits;  // nullptr: can run
  uint32_t generation;
  int warp, turn;
  std::vector<Copy> copies;   // issued and not yet waited for
  std::vector<size_t> groups;  // copies up to each commit
};

static std::vector<Fiber> fibers;
static std::vector<Warp> warps;
static std::vector<char> stacks;
static Barrier whole_block;
static void* scheduler_top;
static const std::function<void()>* body;
static std::mutex one_launch;

static Fiber& self() { return *static_cast<Fiber*>(current); }

/* To the next fibre that can run, or back to run() when all have ended. */
static void give_way() {
  Fiber& from = self();
  const size_t at = &from - fibers.data(), count = fibers.size();
  bool all_ended = true;
  for (size_t i = 1; i <= count; i++) {
    Fiber& to = fibers[at + i < count ? at + i : at + i - count];
    if (to.ended) continue;
    all_ended = false;
    if (to.waits && to.waits->generation == to.generation) continue;
    to.waits = nullptr;
    current = &to;
    if (&to != &from) emulation_switch(&from.stack_top, to.stack_top);
    return;
  }
  if (!all_ended) {
    fprintf(stderr, "emulation: the threads of block (%u, %u) wait at different barriers\n", block.x, block.y);
    abort();
  }
  emulation_switch(&from.stack_top, scheduler_top);
}

static void open_if_complete(Barrier& barrier) {
  if (barrier.arrived < barrier.expected) return;
  barrier.arrived = 0;
  barrier.generation++;
}

static void wait(Barrier& barrier) {
  Fiber& fiber = self();
  fiber.waits = &barrier;
  fiber.generation = barrier.generation;
  barrier.arrived++;
  open_if_complete(barrier);
  give_way();
}

static void fiber_main() {
  (*body)();
  Fiber& fiber = self();
  fiber.ended = true;
  Warp& warp = warps[fiber.warp];
  warp.live &= ~(1u << fiber.lane);
  for (Barrier* barrier : {&whole_block, &warp.barrier}) {
    barrier->expected--;
    if (barrier->expected > 0) open_if_complete(*barrier);
  }
  give_way();
}

static void prepare(dim3 size) {
  const size_t count = size_t(size.x) * size.y * size.z;
  fibers.resize(count);
  warps.resize((count + 31) / 32);
  if (stacks.size() < count * kStack) stacks.resize(count * kStack);
  for (Warp& warp : warps) warp.barrier = {}, warp.live = 0;
  whole_block = {0, 0, int(count)};
  for (size_t i = 0; i < count; i++) {
    Fiber& fiber = fibers[i];
    fiber.index = {uint32_t(i % size.x), uint32_t(i / size.x % size.y), uint32_t(i / size.x / size.y)};
    fiber.lane = int(i % 32);
    fiber.warp = int(i / 32);
    fiber.ended = false;
    fiber.waits = nullptr;
    fiber.turn = 0;
    fiber.copies.clear();
    fiber.groups.clear();
    warps[fiber.warp].barrier.expected++;
    warps[fiber.warp].live |= 1u << fiber.lane;
    // The first switch finds zeros for all registers and fiber_main as the address to return to.
    const uint64_t end = reinterpret_cast<uint64_t>(stacks.data() + (i + 1) * kStack) / 64 * 64;
    void** top = reinterpret_cast<void**>(end) - kFrame;
    for (int word = 0; word < kFrame; word++) top[word] = nullptr;
    top[kReturn] = reinterpret_cast<void*>(fiber_main);
    fiber.stack_top = top;
  }
}

void run(dim3 grid, dim3 block_size, size_t shared_bytes, const std::function<void()>& kernel) {
  std::lock_guard<std::mutex> lock(one_launch);
  std::vector<uint64_t> memory((shared_bytes + 7) / 8 + 2);
  shared = reinterpret_cast<char*>((reinterpret_cast<uint64_t>(memory.data()) + 15) / 16 * 16);
  threads = block_size;
  blocks = grid;
  body = &kernel;
  for (uint32_t i = 0; i < grid.x * grid.y * grid.z; i++) {
    block = {i % grid.x, i / grid.x % grid.y, i / grid.x / grid.y};
    memset(memory.data(), 0xff, memory.size() * 8);  // what a kernel reads before it writes is NaN
    prepare(block_size);
    current = &fibers[0];
    emulation_switch(&scheduler_top, fibers[0].stack_top);
  }
}

void block_barrier() { wait(whole_block); }

const uint64_t* exchange(const uint64_t* words, int count, uint32_t* live) {
  Fiber& fiber = self();
  Warp& warp = warps[fiber.warp];
  uint64_t* all = warp.words[fiber.turn ^= 1];
  memcpy(all + kWords * fiber.lane, words, count * sizeof *words);
  if (live) *live = warp.live;
  wait(warp.barrier);
  return all;
}

void copy_later(void* to, const void* from, int bytes, int zeros) { self().copies.push_back({to, from, bytes, zeros}); }
void commit_copies() { self().groups.push_back(self().copies.size()); }
void wait_copies(int groups) {
  Fiber& fiber = self();
  if (int(fiber.groups.size()) <= groups) return;
  const size_t last = fiber.groups.size() - 1 - groups, upto = fiber.groups[last];
  for (size_t i = 0; i < upto; i++) {
    const Copy& copy = fiber.copies[i];
    if (copy.bytes > 0) memcpy(copy.to, copy.from, copy.bytes);
    memset(static_cast<char*>(copy.to) + copy.bytes, 0, copy.zeros);
  }
  fiber.copies.erase(fiber.copies.begin(), fiber.copies.begin() + upto);
  fiber.groups.erase(fiber.groups.begin(), fiber.groups.begin() + last + 1);
  for (size_t& group : fiber.groups) group -= upto;
}

}  // namespace emulation

static std::mutex allocations_mutex;
static std::map<void*, std::pair<void*, size_t>> allocations;

/* The last byte lies before a page that may not be touched, up to an alignment of 16. */
cudaError_t cudaMalloc(void** p, size_t bytes) {
  constexpr size_t kPage = 4096;
  const size_t size = (bytes + 15) / 16 * 16, pages = (size + kPage - 1) / kPage * kPage;
  if (size < bytes) return cudaErrorMemoryAllocation;
  void* mapped = mmap(nullptr, pages + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return cudaErrorMemoryAllocation;
  mprotect(static_cast<char*>(mapped) + pages, kPage, PROT_NONE);
  *p = static_cast<char*>(mapped) + pages - size;
  std::lock_guard<std::mutex> lock(allocations_mutex);
  allocations[*p] = {mapped, pages + kPage};
  return cudaSuccess;
}

cudaError_t cudaFree(void* p) {
  std::lock_guard<std::mutex> lock(allocations_mutex);
  auto found = allocations.find(p);
  if (found == allocations.end()) return cudaSuccess;
  munmap(found->second.first, found->second.second);
  allocations.erase(found);
  return cudaSuccess;
}

cudaError_t cudaMallocHost(void** p, size_t bytes) { return cudaMalloc(p, bytes); }
cudaError_t cudaFreeHost(void* p) { return cudaFree(p); }

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *total = size_t(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGE_SIZE);
  *free = size_t(sysconf(_SC_AVPHYS_PAGES)) * sysconf(_SC_PAGE_SIZE);
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrMultiProcessorCount            ? 2
           : attribute == cudaDevAttrMaxSharedMemoryPerBlockOptin ? 99 << 10
           : attribute == cudaDevAttrComputeCapabilityMajor       ? 8
                                                                  : 0;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  strcpy(properties->name, "emulation on a CPU");
  return cudaSuccess;
}
