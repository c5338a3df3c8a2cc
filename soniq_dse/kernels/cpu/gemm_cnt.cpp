// W1A1 by XOR and population count (NEON eor, cnt).
//
// Equation. Over a k of K padded elements, with bits 0 for -1 and 1 for +1, sum z_w z_a = K - 2 popcount(w xor a) = raw.
// Exactness. A byte counts at most 8 a step, so bytes hold 31 steps; they then go to int32. |raw| <= K: k_max = 2^31 - 1 rounded
//   down to whole bytes.
// Packing. Eight elements to a byte, element i at bit i. Activations: [k / 8]. Weights: panel = [tap][k / 8][nr] bytes, a vector is 8
//   k of 16 channels; the activation byte is repeated in all of them.
// Ports. Per 128 MAC one eor, one cnt, one add, and 10 / 31 operations for widening: at most 77 MAC/cycle where two 128-bit
//   operations start a cycle, 154 where four do. Tile 4 x 4 vectors: 16 counts, 4 weights, an activation, temporaries of 32
//   registers. Not measured on Arm.
#include "neon.h"

namespace soniq {
namespace {

template <int MR, int NV>
struct Count {
  static constexpr int mr = MR, nr = 16 * NV;
  static constexpr int64_t k_group = 8, flush = 31;

  static int64_t steps(int64_t k) { return ceil_div(k, k_group); }
  static int64_t a_row_bytes(int64_t k) { return steps(k); }
  static int64_t w_bytes(int64_t cols, int64_t taps, int64_t k) { return ceil_div(cols, nr) * taps * steps(k) * nr; }

  static void pack_a(int64_t rows, int64_t k, const void* codes, int64_t ld_codes, uint8_t* out, int64_t ld_out) {
    const uint8x8_t place = vcreate_u8(0x8040201008040201);
    for (int64_t r = 0; r < rows; r++) {
      const uint8_t* src = static_cast<const uint8_t*>(codes) + r * ld_codes;
      uint8_t* dst = out + r * ld_out;
      for (int64_t i = 0; i + k_group <= k; i += k_group) *dst++ = vaddv_u8(vmul_u8(vld1_u8(src + i), place));
      if (const int64_t live = k % k_group) {
        int bits = 0;
        for (int64_t i = 0; i < live; i++) bits |= src[k - live + i] << i;
        *dst = static_cast<uint8_t>(bits);
      }
    }
  }

  static void pack_w(int64_t cols, int64_t taps, int64_t k, const int8_t* w, uint8_t* out) {
    for (int64_t n0 = 0; n0 < cols; n0 += nr)
      for (int64_t t = 0; t < taps; t++)
        for (int64_t i = 0; i < k; i += k_group)
          for (int64_t n = n0; n < n0 + nr; n++) {
            int bits = 0;
            for (int64_t at = i; n < cols && at < min64(i + k_group, k); at++) bits |= (w[(n * taps + t) * k + at] > 0) << (at - i);
            *out++ = static_cast<uint8_t>(bits);
          }
  }

  static void run(int64_t rows, int64_t cols, int64_t taps, int64_t k, const uint8_t* const* a, int64_t ld_a, const uint8_t* w,
                  void* acc, int64_t ld_acc) {
    int32_t* out = static_cast<int32_t*>(acc);
    for (int64_t n = 0; n < cols; n += nr, w += taps * steps(k) * nr)
      for_row_blocks<MR>(rows, [&](auto block, int64_t r) {
        tile(block, taps, steps(k), a + r, ld_a, w, out + r * ld_acc + n, ld_acc);
      });
  }

 private:
  template <int R>
  static void tile(Index<R>, int64_t taps, int64_t steps, const uint8_t* const* a, int64_t ld_a, const uint8_t* w, int32_t* out,
                   int64_t ld_out) {
    const int32x4_t bias = vdupq_n_s32(static_cast<int32_t>(taps * steps * k_group));
    unroll<R * NV * 4>([&](auto i) { vst1q_s32(out + i / (NV * 4) * ld_out + i % (NV * 4) * 4, bias); });
    for (int64_t t = 0; t < taps; t++, a += ld_a)
      for (int64_t s = 0, end; s < steps; s = end) {
        end = min64(s + flush, steps);
        uint8x16_t count[R][NV];
        unroll<R * NV>([&](auto i) SONIQ_INLINE_LAMBDA { count[i / NV][i % NV] = vdupq_n_u8(0); });
        for (int64_t i = s; i < end; i++, w += nr) {
          uint8x16_t weight[NV];
          unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA { weight[v] = vld1q_u8(w + v * 16); });
          unroll<R>([&](auto r) SONIQ_INLINE_LAMBDA {
            const uint8x16_t x = vld1q_dup_u8(a[r] + i);
            unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA {
              count[r][v] = vaddq_u8(count[r][v], vcntq_u8(veorq_u8(weight[v], x)));
            });
          });
        }
        unroll<R * NV>([&](auto i) SONIQ_INLINE_LAMBDA {
          subtract_twice(count[i / NV][i % NV], out + i / NV * ld_out + i % NV * 16);
        });
      }
  }

  static SONIQ_INLINE void subtract_twice(uint8x16_t counts, int32_t* out) {
    const uint16x8_t twice[2] = {vshll_n_u8(vget_low_u8(counts), 1), vshll_high_n_u8(counts, 1)};
    for (int q = 0; q < 4; q++) {
      const uint16x4_t part = q % 2 ? vget_high_u16(twice[q / 2]) : vget_low_u16(twice[q / 2]);
      vst1q_s32(out + q * 4, vsubw_s16(vld1q_s32(out + q * 4), vreinterpret_s16_u16(part)));
    }
  }
};

}  // namespace
}  // namespace soniq

SONIQ_KERNEL(gemm_z1_z1_s32_4x64x8__neon_cnt, "neon", 8, 2147483640, soniq::Count<4, 4>)
SONIQ_KERNEL(gemm_z1_z1_s32_1x128x8__neon_cnt, "neon", 8, 2147483640, soniq::Count<1, 8>)
SONIQ_KERNEL(gemm_z1_z1_s32_8x16x8__neon_cnt, "neon", 8, 2147483640, soniq::Count<8, 1>)
