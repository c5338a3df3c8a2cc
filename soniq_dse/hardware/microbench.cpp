// The frame of a microbenchmark run: times generated loops against a chain of dependent additions in the same sample, so that
// a reading is in core cycles whatever the clock does meanwhile. Included by the generated source, which defines PROBES.
#include <stdint.h>
#include <time.h>

static inline int64_t thread_ns() {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

// What reading the clock takes, which is a system call: the least of many.
static int64_t clock_cost_ns() {
  int64_t least = 1 << 30;
  for (int i = 0; i < 64; ++i) {
    int64_t before = thread_ns(), cost = thread_ns() - before;
    least = cost < least ? cost : least;
  }
  return least;
}

#define TIMES4(x) x x x x
// The addend is a register: recent cores execute additions of small immediates while renaming, in no time.
static int64_t chain(int64_t n) {
  int64_t value = 0, one = 1;
  for (int64_t i = 0; i < n; i += 64)
    asm volatile(TIMES4(TIMES4(TIMES4("add %1, %0\n\t"))) : "+r"(value) : "r"(one) : "cc");
  return value;
}

typedef void (*Loop)(int64_t iterations, char* buffer, int64_t bytes);
extern const Loop soniq_loops[];

// A kernel that does nothing, behind a pointer that the compiler must load at each call.
__attribute__((noinline)) static void nothing(int64_t, int64_t, int64_t, int64_t, const char*, int64_t, const char*, char*,
                                              int64_t) {
  asm volatile("");
}
__attribute__((unused)) static void (*volatile soniq_nothing)(int64_t, int64_t, int64_t, int64_t, const char*, int64_t,
                                                              const char*, char*, int64_t) = nothing;

// nanoseconds[s]: of one iteration of loop `index`; gigahertz[s]: additions of the chain per nanosecond, beside it.
extern "C" void soniq_sample(int index, int64_t iterations, char* buffer, int64_t bytes, int samples, double* nanoseconds,
                             double* gigahertz) {
  const int64_t adds = 1 << 16, cost = clock_cost_ns();
  Loop loop = soniq_loops[index];
  loop(iterations, buffer, bytes);
  for (int s = 0; s < samples; ++s) {
    int64_t t0 = thread_ns();
    chain(adds);
    int64_t t1 = thread_ns();
    // The wide half of a vector unit that has idled during the chain takes microseconds to come up again.
    if (iterations > 1) loop(iterations / 2, buffer, bytes);
    int64_t start = thread_ns();
    loop(iterations, buffer, bytes);
    int64_t t2 = thread_ns();
    chain(adds);
    int64_t t3 = thread_ns();
    double before = (double)adds / (double)(t1 - t0 - cost), after = (double)adds / (double)(t3 - t2 - cost);
    // What disturbs a chain makes it slower: the faster of the two is the clock.
    gigahertz[s] = before > after ? before : after;
    nanoseconds[s] = (double)(t2 - start - cost) / (double)iterations;
  }
}

// Follows a chain of pointers: each load waits for the one before. A call goes on where the last one over this buffer ended;
// always from its start, it would only ever touch the same few lines, which a near cache holds.
extern "C" void soniq_chase(int64_t iterations, char* buffer, int64_t bytes) {
  static char *base, *at;
  static int64_t size;
  if (buffer != base || bytes != size) at = base = buffer, size = bytes;
  for (int64_t i = 0; i < iterations; ++i) at = *(char* volatile*)at;
}
