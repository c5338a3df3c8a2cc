// Stands before the compiler's <arm_neon.h> on other processors: NEON in portable C (SIMDe), so that weights are packed here for
// kernels that run there. What SIMDe 0.7.4 lacks is written here from Arm's definitions.
#pragma once
#if !__has_include(<simde/arm/neon.h>)
#error kernels for Arm are packed here by SIMDe, which is not installed (Debian package libsimde-dev)
#endif
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/arm/neon.h>

#define vshll_high_n_u8(a, n) vshll_n_u8(vget_high_u8(a), n)
#define vshll_high_n_u16(a, n) vshll_n_u16(vget_high_u16(a), n)

inline int32x4_t vusmmlaq_s32(int32x4_t sums, uint8x16_t a, int8x16_t b) {
  int32_t sum[4];
  uint8_t left[16];
  int8_t right[16];
  vst1q_s32(sum, sums), vst1q_u8(left, a), vst1q_s8(right, b);
  for (int i = 0; i < 4; ++i)
    for (int k = 0; k < 8; ++k) sum[i] += left[i / 2 * 8 + k] * right[i % 2 * 8 + k];
  return vld1q_s32(sum);
}
