// The 16-bit baseline of vector units: pairs of floats, accumulated in 16 bits, which is as fast as these units get.
//
// Equation. sum w a, even and odd k apart until the end; rounded to an integer.
// Exactness. Integers are exact as long as both sums stay within 2048; beyond, sums round as 16-bit floats do.
// Packing. That of gemm_bmma, a word being two consecutive floats.
// Bound. HFMA2; of 8 x 16 outputs a thread, which read shared memory three quarters of the time.
#include "vector_tile.h"

struct HalfPairs {
  using Sum = unsigned;
  static constexpr int planes_w = 1, planes_a = 1, words = 1, c_w = 0;
  static SONIQ_INLINE void add(unsigned& sum, unsigned w0, unsigned a0, unsigned w1, unsigned a1) {
    sum = fma_half2(w0, a0, sum);
    sum = fma_half2(w1, a1, sum);
  }
  static SONIQ_INLINE int total(unsigned sum) { return int(rintf(sum_half2(sum))); }
};

SONIQ_CUDA_KERNEL(gemm_f16_f16_f16_128x256x16__sm80_hfma2, "hfma2", 16, 1073741824, 256, VectorTile<HalfPairs, 4, 2, 4, 8, 4>)
