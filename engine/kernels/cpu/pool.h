// Threads that live as long as their context. parallel() cuts [0, items) in pieces that the calling thread and the
// workers take as they are free. Which thread takes a piece must not matter for the result, and pieces are never parts
// of one sum.
//
// A worker spins for a moment after its last piece, since the next op follows within microseconds, then sleeps on a
// futex. The caller waits only for workers that have begun a piece: one that the system has not yet woken comes late,
// finds the job closed and sleeps on, so a busy machine costs a core's share of work and not a stall.
#pragma once
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

class Pool {
 public:
  explicit Pool(int threads);
  ~Pool();
  int threads() const { return int(workers_.size()) + 1; }

  /* work(begin, end) on pieces of `grain` items; returns when all are done. */
  template <class Work>
  void parallel(int64_t items, int64_t grain, const Work& work) {
    if (workers_.empty() || items <= grain) {
      if (items > 0) work(int64_t(0), items);
      return;
    }
    auto call = [](const void* w, int64_t begin, int64_t end) { (*static_cast<const Work*>(w))(begin, end); };
    run({call, &work, items, grain});
  }

 private:
  struct Job {
    void (*call)(const void*, int64_t, int64_t);
    const void* work;
    int64_t items, grain;
  };

  void run(const Job& job);
  void take_pieces();
  void worker();

  /* Bits 0..11: workers inside the job. Bit 12: the job is open. Above: its number, so that no two states are equal. */
  alignas(64) std::atomic<uint32_t> state_{0};
  alignas(64) std::atomic<int64_t> next_{0};
  alignas(64) std::atomic<uint32_t> sleepers_{0};
  std::atomic<bool> stop_{false};
  Job job_{};
  std::vector<std::thread> workers_;
};
