// n dependent integer additions (n a multiple of 16): one cycle each on every core we know of, so n / seconds is the clock.
#include <stdint.h>

#define TIMES4(x) x x x x

// 3 n additions in three chains that know nothing of one another (n a multiple of 16). A core of four adders or more takes a
// cycle for each three, unless another hardware thread shares it: then its dependent additions are hardly slower, but these are.
extern "C" int64_t soniq_independent_adds(int64_t n) {
  int64_t a = 0, b = 0, c = 0, one = 1;
  for (int64_t i = 0; i < n; i += 16) {
#if defined(__x86_64__)
    TIMES4(TIMES4(asm volatile("add %3, %0\n\tadd %3, %1\n\tadd %3, %2" : "+r"(a), "+r"(b), "+r"(c) : "r"(one) : "cc");))
#elif defined(__aarch64__) || defined(__riscv)
    TIMES4(TIMES4(asm volatile("add %0, %0, %3\n\tadd %1, %1, %3\n\tadd %2, %2, %3" : "+r"(a), "+r"(b), "+r"(c) : "r"(one));))
#endif
  }
  return a + b + c;
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
