// W1A2, W2A2, W1A4 and W2A4 by 16-entry tables (NEON tbl): 16 channels a lookup.
//
// Equation, packing and exactness: table16.h.
// Ports. Per step and 16 channels one tbl and one add, and 3 / FLUSH operations for widening: MAC/cycle at most
//   16 G / (2 + 3 / FLUSH) * 2 where two 128-bit operations start a cycle: W1A2 60, W2A2 29, W1A4 47, W2A4 18; twice that where
//   four do. Tile 6 x 3 vectors: 18 byte accumulators, 3 indices, a table, temporaries of 32 registers. Not measured on Arm.
#include "neon.h"
#include "table16.h"

namespace soniq {
namespace {

struct Neon {
  static constexpr int lanes = 16;
  using Bytes = uint8x16_t;
  using Words = uint16x8_t;

  static SONIQ_INLINE Bytes load(const uint8_t* p) { return vld1q_u8(p); }
  static SONIQ_INLINE Bytes low(Bytes index) { return vandq_u8(index, vdupq_n_u8(15)); }
  static SONIQ_INLINE Bytes high(Bytes index) { return vshrq_n_u8(index, 4); }
  static SONIQ_INLINE Bytes table(const uint8_t* p) { return vld1q_u8(p); }
  static SONIQ_INLINE Bytes lookup(Bytes table, Bytes index) { return vqtbl1q_u8(table, index); }

  template <int Elements, int AB>
  static void store_offsets(const uint8_t* codes, int64_t live, uint8_t* out) {
    uint8_t block[32] = {};
    for (int64_t i = 0; i < 32 && i < live; i++) block[i] = codes[i];
    const uint8x16_t half[2] = {vld1q_u8(block), vld1q_u8(block + 16)};
    const uint8x16_t pairs = vorrq_u8(vuzp1q_u8(half[0], half[1]), vshlq_n_u8(vuzp2q_u8(half[0], half[1]), AB));
    uint16_t* wide = reinterpret_cast<uint16_t*>(out);
    if constexpr (Elements == 2 && AB == 2) vst1q_u8(out, vshlq_n_u8(pairs, 4));
    if constexpr (Elements == 2 && AB == 4) {
      vst1q_u16(wide, vshll_n_u8(vget_low_u8(pairs), 4));
      vst1q_u16(wide + 8, vshll_high_n_u8(pairs, 4));
    }
    if constexpr (Elements == 4) {
      const uint8x8_t even = vget_low_u8(vuzp1q_u8(pairs, pairs)), odd = vget_low_u8(vuzp2q_u8(pairs, pairs));
      vst1q_u16(wide, vshll_n_u8(vorr_u8(even, vshl_n_u8(odd, 2 * AB)), 4));
    }
  }

  template <int Elements, int AB>
  static int64_t store_blocks(const uint8_t*, int64_t, uint8_t*) {
    return 0;
  }

  static SONIQ_INLINE void add_twice(Words sums, int32_t* out, bool first, int32_t bias) {
    const uint32x4_t half[2] = {vshll_n_u16(vget_low_u16(sums), 1), vshll_high_n_u16(sums, 1)};
    for (int h = 0; h < 2; h++) {
      const int32x4_t base = first ? vdupq_n_s32(bias) : vld1q_s32(out + h * 4);
      vst1q_s32(out + h * 4, vaddq_s32(base, vreinterpretq_s32_u32(half[h])));
    }
  }
};

}  // namespace
}  // namespace soniq

SONIQ_KERNEL(gemm_z2_z1_s32_6x48x4__neon_tbl, "neon", 4, 715827880, soniq::Table16<soniq::Neon, 6, 3, soniq::Format<1, 2>>)
SONIQ_KERNEL(gemm_z2_z2_s32_6x48x2__neon_tbl, "neon", 2, 238609294, soniq::Table16<soniq::Neon, 6, 3, soniq::Format<2, 2>>)
SONIQ_KERNEL(gemm_z4_z1_s32_6x48x16__neon_tbl, "neon", 16, 143165568, soniq::Table16<soniq::Neon, 6, 3, soniq::Format<1, 4>>)
SONIQ_KERNEL(gemm_z4_z2_s32_6x48x4__neon_tbl, "neon", 4, 47721856, soniq::Table16<soniq::Neon, 6, 3, soniq::Format<2, 4>>)
SONIQ_KERNEL(gemm_z2_z1_s32_1x64x8__neon_tbl, "neon", 8, 715827880, soniq::Table16<soniq::Neon, 1, 4, soniq::Format<1, 2>, true>)
SONIQ_KERNEL(gemm_z2_z2_s32_1x64x4__neon_tbl, "neon", 4, 238609292, soniq::Table16<soniq::Neon, 1, 4, soniq::Format<2, 2>, true>)
SONIQ_KERNEL(gemm_z2_z2_s32_8x16x2__neon_tbl, "neon", 2, 238609294, soniq::Table16<soniq::Neon, 8, 1, soniq::Format<2, 2>>)
SONIQ_KERNEL(gemm_z4_z1_s32_1x64x16__neon_tbl, "neon", 16, 143165568, soniq::Table16<soniq::Neon, 1, 4, soniq::Format<1, 4>, true>)
SONIQ_KERNEL(gemm_z4_z2_s32_1x64x4__neon_tbl, "neon", 4, 47721856, soniq::Table16<soniq::Neon, 1, 4, soniq::Format<2, 4>, true>)
