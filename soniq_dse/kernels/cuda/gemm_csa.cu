// Bit planes on plain integer units: AND, carry-save adders, and a population count of every second word only.
//
// Equation. sum u_w u_a = sum_q sum_p 2^(q+p) sum of popcount(w_q & a_p). Two words of products and the word of ones left over from
//   before go through a full adder of 32 columns: its carries are counted, twice, its sums are left over (Harley and Seal; H. S.
//   Warren, Hacker's Delight, 5-1).
// Exactness. |out| <= (2^bw - 1)(2^ba - 1) K must fit int32.
// Packing. That of gemm_bmma.
// Bound. Two words take four LOP3 (two AND, two of the adder) and a POPC: with 64 and 16 lanes a cycle both are busy all the time, 1024
//   products of bits a cycle and multiprocessor; counting every word would leave 512.
#include "vector_tile.h"

struct CarrySave {
  unsigned ones;
  int twos;
};

template <int PW, int PA>
struct Counted {
  using Sum = CarrySave;
  static constexpr int planes_w = PW, planes_a = PA, words = 1, c_w = (1 << PW) - 1;
  static SONIQ_INLINE void add(CarrySave& sum, unsigned w0, unsigned a0, unsigned w1, unsigned a1) {
    const unsigned x = w0 & a0, y = w1 & a1;
    sum.twos += __popc(majority(sum.ones, x, y));
    sum.ones = parity(sum.ones, x, y);
  }
  static SONIQ_INLINE int total(CarrySave sum) { return 2 * sum.twos + __popc(sum.ones); }
};

SONIQ_CUDA_KERNEL(gemm_u1_z1_s32_64x128x256__sm80_csa, "lop3_popc", 256, 2147483392, 256, VectorTile<Counted<1, 1>, 2, 4, 4, 2, 4>)
SONIQ_CUDA_KERNEL(gemm_u2_z1_s32_32x128x256__sm80_csa, "lop3_popc", 256, 715827712, 256, VectorTile<Counted<1, 2>, 2, 4, 4, 2, 4>)
