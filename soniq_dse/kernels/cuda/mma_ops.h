// What tensor units multiply: bit planes of both operands, bytes with weights of 1, 2, 4 or 8
// bits, or nibbles with weights of 1, 2 or 4. `kind`: see layer.h.
#pragma once
#include "mma_tile.h"

template <int PW, int PA>
struct Planes {
  static constexpr int planes_w = PW, planes_a = PA, words = 1, c_w = (1 << PW) - 1, kind = 16 * PW + PA;
  static SONIQ_INLINE void fragment(unsigned (&a)[4], uint4 packed, int) {
    a[0] = packed.x, a[1] = packed.y, a[2] = packed.z, a[3] = packed.w;
  }
  static SONIQ_INLINE void mma(int (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) { mma_b1_and(c, a, b); }
};

template <int BITS>
struct Bytes {
  static constexpr int planes_w = 1, planes_a = 1, words = 8 / BITS, c_w = BITS == 8 ? 0 : (1 << BITS) - 1, kind = 16 * BITS + 8;
  static SONIQ_INLINE void fragment(unsigned (&a)[4], uint4 packed, int step) {
    constexpr unsigned mask = 0x01010101u * ((1u << BITS) - 1);
    a[0] = packed.x >> step * BITS & mask, a[1] = packed.y >> step * BITS & mask;
    a[2] = packed.z >> step * BITS & mask, a[3] = packed.w >> step * BITS & mask;
  }
  static SONIQ_INLINE void mma(int (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    if (BITS == 8)
      mma_s8_u8(c, a, b);
    else
      mma_u8_u8(c, a, b);
  }
};

template <int BITS>
struct Nibbles {
  static constexpr int planes_w = 1, planes_a = 1, words = 4 / BITS, c_w = (1 << BITS) - 1;
  static SONIQ_INLINE void fragment(unsigned (&a)[4], uint4 packed, int step) {
    constexpr unsigned mask = 0x11111111u * c_w;
    a[0] = packed.x >> step * BITS & mask, a[1] = packed.y >> step * BITS & mask;
    a[2] = packed.z >> step * BITS & mask, a[3] = packed.w >> step * BITS & mask;
  }
  static SONIQ_INLINE void mma(int (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) { mma_u4_u4(c, a, b); }
};
