// Allocations of a context: from the system in whole pages, on huge pages where they are large, zeroed. Their extents
// are kept, so that debug mode can tell whether a tensor lies inside one.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>

class Memory {
 public:
  ~Memory();
  /* nullptr: the system has none left. */
  void* allocate(uint64_t bytes);
  /* false: nothing was allocated at p. */
  bool release(void* p);
  bool contains(uint64_t address, uint64_t bytes);

 private:
  std::mutex mutex_;
  struct Size {
    uint64_t asked, mapped;
  };
  std::map<uint64_t, Size> sizes_;
};

/* Bytes that this process may still take and may have in all: of the machine or of its container. */
void system_memory(uint64_t& free, uint64_t& total);
