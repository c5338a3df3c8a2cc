// W4A4, W4A8 and W8A8 by byte products summed in 16 bits (NEON smull, smlal, sadalp), for processors without dot products.
//
// Equation. raw[r][n] = sum_{t,k} w[n][t][k] * u[t][r][k]; 8-bit codes travel as u - 128, see neon.h.
// Exactness. A block adds STEPS products of a lane in int16, |sum| <= STEPS max|w| max|x| < 2^15: 2 * 127 * 128 = 32512 for W8A8,
//   8 * 15 * 128 = 15360 for W4A8, less for W4A4. sadalp then adds neighbouring lanes to int32. k_max is the largest K with
//   |raw| in int32, in whole groups of 2 STEPS.
// Packing. neon.h with G = 2: 16 bytes are 2 k of 8 channels; the two activations are repeated in 8 bytes.
// Ports. Per 16 STEPS MAC 2 STEPS products and 2 sadalp: at most 16 MAC per 2 + 2 / STEPS operations, 5.3 an operation for W8A8
//   and 7.1 for W4; processors have one or two pipes for them. Tile 4 x 2 vectors of 8 channels: 16 sums of 32 registers.
//   One row: 4-bit weights are codes, looked up by tbl. Not measured on Arm.
#include "neon.h"

namespace soniq {
namespace {

template <int MR, int NV, int Steps, class Operands>
struct MulLong {
  static constexpr int mr = MR, nr = 8 * NV, k_group = 2 * Steps;
  static constexpr auto a_row_bytes = Operands::a_row_bytes;
  static constexpr auto w_bytes = Operands::w_bytes;
  static constexpr auto pack_a = Operands::pack_a;
  static constexpr auto pack_w = Operands::pack_w;

  static void run(int64_t rows, int64_t cols, int64_t taps, int64_t k, const uint8_t* const* a, int64_t ld_a, const uint8_t* w,
                  void* acc, int64_t ld_acc) {
    int32_t* out = static_cast<int32_t*>(acc);
    for (int64_t n = 0; n < cols; n += nr, w += Operands::panel_bytes(taps, k))
      for_row_blocks<MR>(rows, [&](auto block, int64_t r) {
        tile(block, taps, ceil_div(k, k_group), a + r, ld_a, w, out + r * ld_acc + n, ld_acc);
      });
  }

 private:
  template <int R>
  static void tile(Index<R>, int64_t taps, int64_t blocks, const uint8_t* const* a, int64_t ld_a, const uint8_t* panel, int32_t* out,
                   int64_t ld_out) {
    const uint8_t* w = panel + Operands::head_bytes;
    int32x4_t sum[R][2 * NV];
    unroll<R * 2 * NV>([&](auto i) SONIQ_INLINE_LAMBDA { (&sum[0][0])[i] = Operands::start(panel, i % (2 * NV) * 4); });
    for (int64_t t = 0; t < taps; t++, a += ld_a)
      for (int64_t b = 0; b < blocks; b++, w += Operands::group_bytes)
        unroll<R>([&](auto r) SONIQ_INLINE_LAMBDA {
          int8x8_t x[Steps];
          unroll<Steps>([&](auto s) SONIQ_INLINE_LAMBDA { x[s] = repeat2(a[r] + b * k_group + s * 2); });
          unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA { add_block(x, w, v, sum[r][2 * v], sum[r][2 * v + 1]); });
        });
    unroll<R * 2 * NV>([&](auto i) SONIQ_INLINE_LAMBDA {
      vst1q_s32(out + i / (2 * NV) * ld_out + i % (2 * NV) * 4, (&sum[0][0])[i]);
    });
  }

  static SONIQ_INLINE int8x8_t repeat2(const uint8_t* row) {
    return vreinterpret_s8_s16(vld1_dup_s16(reinterpret_cast<const int16_t*>(row)));
  }

  // 2 Steps elements of k for the 8 channels of vector v.
  static SONIQ_INLINE void add_block(const int8x8_t (&x)[Steps], const uint8_t* w, int v, int32x4_t& low, int32x4_t& high) {
    const int8x16_t first = Operands::vector(w, v);
    int16x8_t low_words = vmull_s8(vget_low_s8(first), x[0]), high_words = vmull_s8(vget_high_s8(first), x[0]);
    unroll<Steps - 1>([&](auto s) SONIQ_INLINE_LAMBDA {
      const int8x16_t weight = Operands::vector(w, (s + 1) * NV + v);
      low_words = vmlal_s8(low_words, vget_low_s8(weight), x[s + 1]);
      high_words = vmlal_s8(high_words, vget_high_s8(weight), x[s + 1]);
    });
    low = vpadalq_s16(low, low_words);
    high = vpadalq_s16(high, high_words);
  }
};

}  // namespace
}  // namespace soniq

SONIQ_KERNEL(gemm_u8_s8_s32_4x16x4__neon_smlal, "neon", 4, 66308, soniq::MulLong<4, 2, 2, soniq::ByteOperands<16, 2, 4, 128>>)
SONIQ_KERNEL(gemm_u8_z4_s32_4x16x16__neon_smlal, "neon", 16, 561424, soniq::MulLong<4, 2, 8, soniq::ByteOperands<16, 2, 16, 128>>)
SONIQ_KERNEL(gemm_u4_z4_s32_4x16x16__neon_smlal, "neon", 16, 9544368, soniq::MulLong<4, 2, 8, soniq::ByteOperands<16, 2, 16, 0>>)
SONIQ_KERNEL(gemm_u8_s8_s32_1x32x4__neon_smlal, "neon", 4, 66308, soniq::MulLong<1, 4, 2, soniq::ByteOperands<32, 2, 4, 128>>)
SONIQ_KERNEL(gemm_u8_z4_s32_1x32x16__neon_smlal, "neon", 16, 561424, soniq::MulLong<1, 4, 8, soniq::NibbleOperands<32, 2, 16, 128>>)
SONIQ_KERNEL(gemm_u4_z4_s32_1x32x16__neon_smlal, "neon", 16, 9544368, soniq::MulLong<1, 4, 8, soniq::NibbleOperands<32, 2, 16, 0>>)
