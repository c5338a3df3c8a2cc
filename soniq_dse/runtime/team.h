// A team of threads that walks lists of steps together: the caller is thread 0, the others wait for it.
//
// Every step is cut into as many shares as there are threads. A thread does its own share, the same in every run; then what
// others have not begun, so that one whom the machine has put aside holds nobody up. A step begins when all shares of the one
// before are done, and which thread did them has no influence on what they give.
//
// Waiting is spinning for some tens of microseconds, about what lies between two steps or two runs, then sleeping, so that an
// idle team takes no core from others. A team of more threads than cores does not spin. Nothing is allocated after it is made.
#pragma once
#include <pthread.h>
#include <stdint.h>
#include <unistd.h>

#include <atomic>

#include "layer.h"

namespace soniq {

class Team {
 public:
  // Does a share of step 0, 1, ...
  using Body = void (*)(const void* context, int64_t step, SoniqShare share);

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
    announce({nullptr, nullptr, first_, 0});
    for (int64_t i = 0; i < started_; ++i) pthread_join(threads_[i], nullptr);
  }

  int64_t count() const { return count_; }

  // Returns once all steps are done, and sees all that they wrote.
  void run(Body body, const void* context, int64_t n_steps) {
    if (count_ == 1) {
      for (int64_t step = 0; step < n_steps; ++step) body(context, step, {0, 1});
      return;
    }
    const Run run = {body, context, first_, n_steps};
    first_ += n_steps;
    announce(run);
    walk(run, 0);
  }

 private:
  // Steps are counted through all runs: first is the number of step 0. A thread that comes late finds all shares taken.
  struct Run {
    Body body;
    const void* context;
    int64_t first, n_steps;
  };

  struct Member {
    Team* team;
    int64_t index;
  };

  struct alignas(64) Counter {  // apart, since threads spin on one while another changes
    std::atomic<int64_t> value{0};
  };

  static void* work(void* argument) {
    const Member member = *static_cast<Member*>(argument);
    for (int64_t seen = 0;;) {
      const Run run = member.team->next(seen);
      if (run.body == nullptr) return nullptr;
      member.team->walk(run, member.index);
    }
  }

  void announce(const Run& run) {
    pthread_mutex_lock(&mutex_);
    run_ = run;
    runs_.value.fetch_add(1, std::memory_order_release);
    pthread_mutex_unlock(&mutex_);
    pthread_cond_broadcast(&moved_);
  }

  // The newest run, once there is one that was not seen.
  Run next(int64_t& seen) {
    wait_for(runs_, seen + 1);
    pthread_mutex_lock(&mutex_);
    seen = runs_.value.load(std::memory_order_relaxed);
    const Run run = run_;
    pthread_mutex_unlock(&mutex_);
    return run;
  }

  void walk(const Run& run, int64_t index) {
    for (int64_t i = 0; i < run.n_steps; ++i) {
      const int64_t step = run.first + i, all_done = (step + 1) * count_;
      for (int64_t k = 0; k < count_; ++k) {
        const int64_t share = (index + k) % count_;
        int64_t untaken = step;
        if (!taken_[share].value.compare_exchange_strong(untaken, step + 1, std::memory_order_acq_rel)) continue;
        run.body(run.context, i, {share, count_});
        if (done_.value.fetch_add(1, std::memory_order_acq_rel) + 1 == all_done) wake();
      }
      wait_for(done_, all_done);
    }
  }

  // Until the counter, which only grows, has come to `value`.
  void wait_for(const Counter& counter, int64_t value) {
    for (int i = 0; i < spins_; ++i) {
      if (counter.value.load(std::memory_order_acquire) >= value) return;
      relax();
    }
    pthread_mutex_lock(&mutex_);
    while (counter.value.load(std::memory_order_acquire) < value) {
      ++sleepers_;
      pthread_cond_wait(&moved_, &mutex_);
      --sleepers_;
    }
    pthread_mutex_unlock(&mutex_);
  }

  // A thread about to sleep holds the mutex from its last look at the counter until it sleeps, so none sleeps through this.
  void wake() {
    pthread_mutex_lock(&mutex_);
    const bool any = sleepers_ > 0;
    pthread_mutex_unlock(&mutex_);
    if (any) pthread_cond_broadcast(&moved_);
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
  int64_t first_ = 0;
  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t moved_ = PTHREAD_COND_INITIALIZER;
  int64_t sleepers_ = 0;  // this and run_: under the mutex
  Run run_ = {};
  pthread_t threads_[most];
  Member members_[most];
  Counter runs_, done_;
  Counter taken_[most];  // by share: the number of the step whose share was taken last, and one more
};

}  // namespace soniq
