// n dependent integer additions (n a multiple of 16): one cycle each on every core we know of, so n / seconds is the clock.
#include <stdint.h>

#define TIMES4(x) x x x x

// n additions of four chains that know nothing of one another: a core that is shared with another hardware thread does fewer of
// them a cycle, while its dependent additions are hardly slower.
extern "C" int64_t soniq_independent_adds(int64_t n) {
  int64_t a = 0, b = 0, c = 0, d = 0, one = 1;
  for (int64_t i = 0; i < n; i += 16) {
#if defined(__x86_64__)
    TIMES4(asm volatile("add %4, %0\n\tadd %4, %1\n\tadd %4, %2\n\tadd %4, %3"
                        : "+r"(a), "+r"(b), "+r"(c), "+r"(d) : "r"(one) : "cc");)
#elif defined(__aarch64__) || defined(__riscv)
    TIMES4(asm volatile("add %0, %0, %4\n\tadd %1, %1, %4\n\tadd %2, %2, %4\n\tadd %3, %3, %4"
                        : "+r"(a), "+r"(b), "+r"(c), "+r"(d) : "r"(one));)
#endif
  }
  return a + b + c + d;
}

extern "C" int64_t soniq_dependent_adds(int64_t n) {
  int64_t value = 0;
  // Opaque and register-only: the compiler can neither fold nor shorten the chain. The addend comes from a register, since
  // some cores execute additions of small immediates while renaming.
  int64_t one = 1;
  for (int64_t i = 0; i < n; i += 16) {
#if defined(__x86_64__)
    TIMES4(TIMES4(asm volatile("add %1, %0" : "+r"(value) : "r"(one) : "cc");))
#elif defined(__aarch64__)
    TIMES4(TIMES4(asm volatile("add %0, %0, %1" : "+r"(value) : "r"(one));))
#elif defined(__riscv)
    TIMES4(TIMES4(asm volatile("add %0, %0, %1" : "+r"(value) : "r"(one));))
#else
#error "no dependent addition is known for this instruction set"
#endif
  }
  return value;
}
