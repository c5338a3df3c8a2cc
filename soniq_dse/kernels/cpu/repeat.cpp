// Times a kernel by calling it again and again: a call from Python costs as much as a small product.
#include <time.h>

#include "soniq_kernel.h"

// CPU seconds of the thread for `repeats` calls of `run` with one set of arguments (those of SoniqKernel::run).
extern "C" double soniq_time_kernel(int64_t repeats, decltype(SoniqKernel::run) run, int64_t rows, int64_t cols, int64_t taps,
                                    int64_t k, const uint8_t* const* a, int64_t ld_a, const uint8_t* w, void* acc,
                                    int64_t ld_acc) {
  timespec begin, end;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begin);
  for (int64_t i = 0; i < repeats; ++i) run(rows, cols, taps, k, a, ld_a, w, acc, ld_acc);
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
  return static_cast<double>(end.tv_sec - begin.tv_sec) + 1e-9 * static_cast<double>(end.tv_nsec - begin.tv_nsec);
}
