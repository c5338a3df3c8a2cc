// fp32 activations with weights of 2, 4 or 8 bits, decoded while they are multiplied (NEON fmla).
//
// Equation. acc = sum w a in fp32, w the integers themselves: odd for zero-free weights (their level is w 2^(1-b), and
//   scales are applied later), or s8. Every output is one chain of fused multiply-adds from 0, taps in order, within a tap k
//   in order, whatever the number of rows.
// Error. With n = taps * padded k and u = 2^-24: |acc - exact| <= n u / (1 - n u) * sum |w| |a| (Higham, Accuracy and
//   Stability of Numerical Algorithms, 2002, section 3.1; one rounding per term). k_max is where n u reaches 1/2. Padding
//   adds 0 exactly.
// Packing. Activations: fp32, rows padded with 0 to the k-group of G = 32 / weight_bits. Weights: panel = [tap][k / G]
//   [nr / 4][16] bytes: a vector is 4 channels by G elements. Below 8 bits a 32-bit lane is a channel and element i is its
//   bits i * weight_bits; at 8 bits the vector is G runs of 4 channels.
// Ports. Decoding 4 weights takes a shift, an and, a doubling, a subtraction and scvtf (8 bits: two sxtl and scvtf), each use of
//   them one fmla: 4 MAC an instruction, 8 MAC/cycle where two start a cycle, 16 where four do. Tile 6 x 4 vectors: 24 sums, 6
//   activations, a weight of 32 registers. Not measured on Arm.
#include "neon.h"

namespace soniq {
namespace {

template <int MR, int NV, int WB>
struct WeightOnly {
  static constexpr int mr = MR, nr = 4 * NV, c_w = (1 << WB) - 1;
  static constexpr int64_t group = 32 / WB, group_bytes = NV * 16;

  static int64_t groups(int64_t k) { return ceil_div(k, group); }
  static int64_t a_row_bytes(int64_t k) { return groups(k) * group * 4; }
  static int64_t w_bytes(int64_t cols, int64_t taps, int64_t k) { return ceil_div(cols, nr) * taps * groups(k) * group_bytes; }

  static void pack_a(int64_t rows, int64_t k, const void* activations, int64_t ld, uint8_t* out, int64_t ld_out) {
    for (int64_t r = 0; r < rows; r++, out += ld_out) {
      __builtin_memcpy(out, static_cast<const float*>(activations) + r * ld, k * 4);
      __builtin_memset(out + k * 4, 0, a_row_bytes(k) - k * 4);
    }
  }

  static void pack_w(int64_t cols, int64_t taps, int64_t k, const int8_t* w, uint8_t* out) {
    __builtin_memset(out, 0, w_bytes(cols, taps, k));
    for (int64_t n0 = 0; n0 < cols; n0 += nr)
      for (int64_t t = 0; t < taps; t++)
        for (int64_t i = 0; i < k; i += group, out += group_bytes)
          for (int64_t n = n0; n < min64(n0 + nr, cols); n++)
            pack_lane(w + (n * taps + t) * k + i, min64(group, k - i), n % 4, out + (n - n0) / 4 * 16);
  }

  static void run(int64_t rows, int64_t cols, int64_t taps, int64_t k, const uint8_t* const* a, int64_t ld_a, const uint8_t* w,
                  void* acc, int64_t ld_acc) {
    float* out = static_cast<float*>(acc);
    for (int64_t n = 0; n < cols; n += nr, w += taps * groups(k) * group_bytes)
      for_row_blocks<MR>(rows, [&](auto block, int64_t r) {
        tile(block, taps, groups(k), a + r, ld_a, w, out + r * ld_acc + n, ld_acc);
      });
  }

 private:
  static void pack_lane(const int8_t* w, int64_t live, int64_t channel, uint8_t* out) {
    for (int64_t i = 0; i < live; i++)
      if constexpr (WB == 8)
        out[i * 4 + channel] = static_cast<uint8_t>(w[i]);
      else
        out[channel * 4 + i * WB / 8] = static_cast<uint8_t>(out[channel * 4 + i * WB / 8] | (w[i] + c_w) / 2 << i * WB % 8);
  }

  // Element I of the group for 4 channels.
  template <int I>
  static SONIQ_INLINE float32x4_t decode(Index<I>, const uint8_t* w) {
    if constexpr (WB == 8) {
      const int16x8_t pair = vmovl_s8(vld1_s8(reinterpret_cast<const int8_t*>(w) + I / 2 * 8));
      return vcvtq_f32_s32(vmovl_s16(I % 2 ? vget_high_s16(pair) : vget_low_s16(pair)));
    } else {
      const uint32x4_t codes = vandq_u32(vreinterpretq_u32_u8(vld1q_u8(w)) >> (I * WB), vdupq_n_u32(c_w));
      return vcvtq_f32_s32(vsubq_s32(vreinterpretq_s32_u32(vaddq_u32(codes, codes)), vdupq_n_s32(c_w)));
    }
  }

  template <int R>
  static void tile(Index<R>, int64_t taps, int64_t groups, const uint8_t* const* a, int64_t ld_a, const uint8_t* w, float* out,
                   int64_t ld_out) {
    float32x4_t sum[R][NV];
    unroll<R * NV>([&](auto i) SONIQ_INLINE_LAMBDA { sum[i / NV][i % NV] = vdupq_n_f32(0); });
    for (int64_t t = 0; t < taps; t++, a += ld_a)
      for (int64_t g = 0; g < groups; g++, w += group_bytes)
        unroll<group / 4>([&](auto quad) SONIQ_INLINE_LAMBDA {
          float32x4_t x[R];
          unroll<R>([&](auto r) SONIQ_INLINE_LAMBDA {
            x[r] = vld1q_f32(reinterpret_cast<const float*>(a[r]) + g * group + quad * 4);
          });
          unroll<4 * NV>([&](auto lv) SONIQ_INLINE_LAMBDA {
            constexpr int lane = lv / NV, v = lv % NV;
            const float32x4_t weight = decode(Index<quad * 4 + lane>{}, w + v * 16);
            unroll<R>([&](auto r) SONIQ_INLINE_LAMBDA { sum[r][v] = vfmaq_laneq_f32(sum[r][v], weight, x[r], lane); });
          });
        });
    unroll<R * NV>([&](auto i) SONIQ_INLINE_LAMBDA { vst1q_f32(out + i / NV * ld_out + i % NV * 4, sum[i / NV][i % NV]); });
  }
};

}  // namespace
}  // namespace soniq

SONIQ_KERNEL(gemm_f32_z4_f32_6x16x8__neon_fmla, "neon", 8, 8388608, soniq::WeightOnly<6, 4, 4>)
SONIQ_KERNEL(gemm_f32_z4_f32_1x32x8__neon_fmla, "neon", 8, 8388608, soniq::WeightOnly<1, 8, 4>)
SONIQ_KERNEL(gemm_f32_z2_f32_6x16x16__neon_fmla, "neon", 16, 8388608, soniq::WeightOnly<6, 4, 2>)
SONIQ_KERNEL(gemm_f32_z2_f32_1x32x16__neon_fmla, "neon", 16, 8388608, soniq::WeightOnly<1, 8, 2>)
SONIQ_KERNEL(gemm_f32_s8_f32_6x16x4__neon_fmla, "neon", 4, 8388608, soniq::WeightOnly<6, 4, 8>)
SONIQ_KERNEL(gemm_f32_s8_f32_1x32x4__neon_fmla, "neon", 4, 8388608, soniq::WeightOnly<1, 8, 8>)
