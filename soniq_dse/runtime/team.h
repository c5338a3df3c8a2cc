// A team of threads that runs one function together, with barriers in it: the caller is thread 0, the others wait for it.
//
// Waiting is spinning for some tens of microseconds, about what lies between two steps or two runs, then sleeping, so that an
// idle team, or one whose threads the machine has put aside, takes no core from others. A team of more threads than cores
// does not spin. Nothing is allocated after the team is made.
#pragma once
#include <pthread.h>
#include <stdint.h>
#include <unistd.h>

#include <atomic>

namespace soniq {

class Team {
 public:
  // body(context, index), in every thread.
  using Body = void (*)(const void* context, Team& team, int64_t index);

  static constexpr int64_t most = 256;

  explicit Team(int64_t count) : count_(count), spins_(count <= sysconf(_SC_NPROCESSORS_ONLN) ? 2000 : 0) {}

  // False where the system gives no more threads; those that were started end with the team.
  bool start() {
    for (started_ = 0; started_ < count_ - 1; ++started_) {
      members_[started_] = {this, started_ + 1};
      if (pthread_create(&threads_[started_], nullptr, work, &members_[started_]) != 0) return false;
    }
    return true;
  }

  ~Team() {
    body_ = nullptr;
    signal(run_);
    for (int64_t i = 0; i < started_; ++i) pthread_join(threads_[i], nullptr);
  }

  int64_t count() const { return count_; }

  // Runs body in all threads; it must end in a barrier, after which the caller may read what they wrote, and what `context`
  // points to may be gone.
  void run(Body body, const void* context) {
    body_ = body;
    context_ = context;
    if (count_ > 1) signal(run_);
    body(context, *this, 0);
  }

  // Returns once all threads have come here, and sees all that they wrote before.
  void barrier() {
    if (count_ == 1) return;
    const uint32_t phase = phase_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == count_) {
      arrived_.store(0, std::memory_order_relaxed);
      signal(phase_);
    } else {
      wait(phase_, phase);
    }
  }

 private:
  struct Member {
    Team* team;
    int64_t index;
  };

  static void* work(void* argument) {
    const Member member = *static_cast<Member*>(argument);
    Team& team = *member.team;
    for (uint32_t seen = 0;; ++seen) {
      team.wait(team.run_, seen);
      if (team.body_ == nullptr) return nullptr;
      team.body_(team.context_, team, member.index);
    }
  }

  void wait(const std::atomic<uint32_t>& counter, uint32_t old) {
    for (int i = 0; i < spins_; ++i) {
      if (counter.load(std::memory_order_acquire) != old) return;
      relax();
    }
    pthread_mutex_lock(&mutex_);
    while (counter.load(std::memory_order_acquire) == old) {
      ++sleepers_;
      pthread_cond_wait(&moved_, &mutex_);
      --sleepers_;
    }
    pthread_mutex_unlock(&mutex_);
  }

  // Counts up. A thread about to sleep holds the mutex from its last look at the counter until it sleeps, and the counter
  // moves under the mutex: none sleeps through it.
  void signal(std::atomic<uint32_t>& counter) {
    pthread_mutex_lock(&mutex_);
    counter.fetch_add(1, std::memory_order_release);
    const bool wake = sleepers_ > 0;
    pthread_mutex_unlock(&mutex_);
    if (wake) pthread_cond_broadcast(&moved_);
  }

  static void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

  const int64_t count_;
  const int spins_;
  int64_t started_ = 0;
  Body body_ = nullptr;
  const void* context_ = nullptr;
  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t moved_ = PTHREAD_COND_INITIALIZER;
  int64_t sleepers_ = 0;  // under the mutex
  pthread_t threads_[most];
  Member members_[most];
  // Apart, since threads spin on one while another changes.
  alignas(64) std::atomic<uint32_t> run_{0};
  alignas(64) std::atomic<uint32_t> phase_{0};
  alignas(64) std::atomic<uint32_t> arrived_{0};
};

}  // namespace soniq
