#include "pool.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <climits>

static constexpr uint32_t kInside = (1u << 12) - 1, kOpen = 1u << 12, kNumber = 1u << 13;
static constexpr auto kSpin = std::chrono::microseconds(20);

static void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

static void sleep_while(std::atomic<uint32_t>& word, uint32_t value) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
}

static void wake_all(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

/* Returns once until(state) holds; spins first. */
template <class Condition>
static void wait(std::atomic<uint32_t>& state, std::atomic<uint32_t>& sleepers, Condition until) {
  const auto give_up = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 32; i++) {
      if (until(state.load())) return;
      pause_cpu();
    }
  } while (std::chrono::steady_clock::now() < give_up);
  sleepers++;
  for (uint32_t seen = state.load(); !until(seen); seen = state.load()) sleep_while(state, seen);
  sleepers--;
}

Pool::Pool(int threads) {
  for (int i = 1; i < threads; i++) workers_.emplace_back([this] { worker(); });
}

Pool::~Pool() {
  stop_ = true;
  state_ += kNumber;
  wake_all(state_);
  for (auto& thread : workers_) thread.join();
}

void Pool::run(const Job& job) {
  job_ = job;
  next_ = 0;
  state_ += kNumber | kOpen;
  if (sleepers_ > 0) wake_all(state_);
  take_pieces();
  state_ &= ~kOpen;
  wait(state_, sleepers_, [](uint32_t state) { return (state & kInside) == 0; });
}

void Pool::take_pieces() {
  for (;;) {
    const int64_t begin = next_.fetch_add(job_.grain);
    if (begin >= job_.items) return;
    const int64_t end = begin + job_.grain < job_.items ? begin + job_.grain : job_.items;
    job_.call(job_.work, begin, end);
  }
}

void Pool::worker() {
  uint32_t done = 0;  // the number of the last job this worker was in
  for (;;) {
    wait(state_, sleepers_, [&](uint32_t state) { return stop_ || ((state & kOpen) && state / kNumber != done); });
    if (stop_) return;
    uint32_t seen = state_.load();
    if (!(seen & kOpen) || !state_.compare_exchange_strong(seen, seen + 1)) continue;
    done = seen / kNumber;
    take_pieces();
    // The caller may sleep until the last one has left.
    if ((--state_ & kInside) == 0 && sleepers_ > 0) wake_all(state_);
  }
}
