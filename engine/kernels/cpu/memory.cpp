#include "memory.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstring>

static constexpr uint64_t kPage = 4096, kHugePage = 2 << 20;

static uint64_t round_up(uint64_t bytes, uint64_t to) { return (bytes + to - 1) / to * to; }

Memory::~Memory() {
  for (auto [address, size] : sizes_) munmap(reinterpret_cast<void*>(address), size.mapped);
}

void* Memory::allocate(uint64_t bytes) {
  const bool huge = bytes >= kHugePage;
  const uint64_t size = round_up(bytes ? bytes : 1, huge ? kHugePage : kPage);
  // mmap promises 4 KiB alignment only: take 2 MiB more and give back what sticks out.
  const uint64_t slack = huge ? kHugePage : 0;
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* mapped = mmap(nullptr, size + slack, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  uint64_t begin = reinterpret_cast<uint64_t>(mapped);
  if (huge) {
    const uint64_t aligned = round_up(begin, kHugePage);
    if (aligned > begin) munmap(mapped, aligned - begin);
    const uint64_t tail = begin + size + slack - (aligned + size);
    if (tail > 0) munmap(reinterpret_cast<void*>(aligned + size), tail);
    madvise(reinterpret_cast<void*>(aligned), size, MADV_HUGEPAGE);
    begin = aligned;
  }
  std::lock_guard<std::mutex> lock(mutex_);
  sizes_[begin] = {bytes, size};
  return reinterpret_cast<void*>(begin);
}

bool Memory::release(void* p) {
  std::lock_guard<std::mutex> lock(mutex_);
  auto found = sizes_.find(reinterpret_cast<uint64_t>(p));
  if (found == sizes_.end()) return false;
  munmap(p, found->second.mapped);
  sizes_.erase(found);
  return true;
}

bool Memory::contains(uint64_t address, uint64_t bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  auto after = sizes_.upper_bound(address);
  if (after == sizes_.begin()) return false;
  auto [begin, size] = *--after;
  return address - begin <= size.asked && bytes <= size.asked - (address - begin);
}

/* The number in a file of /proc or /sys, behind `label`; 0 if there is none. */
static uint64_t read_number(const char* path, const char* label) {
  FILE* file = fopen(path, "r");
  if (!file) return 0;
  char line[256];
  unsigned long long value = 0;
  while (fgets(line, sizeof line, file)) {
    if (strncmp(line, label, strlen(label)) == 0 && sscanf(line + strlen(label), "%llu", &value) == 1) break;
  }
  fclose(file);
  return value;
}

void system_memory(uint64_t& free, uint64_t& total) {
  total = read_number("/proc/meminfo", "MemTotal:") << 10;
  free = read_number("/proc/meminfo", "MemAvailable:") << 10;
  // cgroup v2; "max" reads as 0. Page cache counts as used there, but goes when memory is wanted.
  const uint64_t limit = read_number("/sys/fs/cgroup/memory.max", "");
  if (limit == 0 || limit >= total) return;
  const uint64_t used = read_number("/sys/fs/cgroup/memory.current", "");
  const uint64_t cache = read_number("/sys/fs/cgroup/memory.stat", "inactive_file ");
  const uint64_t held = used > cache ? used - cache : 0;
  total = limit;
  if (limit - (held < limit ? held : limit) < free) free = limit - (held < limit ? held : limit);
}
