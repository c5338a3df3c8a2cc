// W4A4, W4A8 and W8A8 by products of 2 x 8 matrices of bytes (Arm i8mm usmmla).
//
// Equation. raw[r][n] = sum_{t,k} w[n][t][k] * u[t][r][k]: an instruction adds to a 2 x 2 matrix of int32 the product of 8 k of two
//   rows of codes, unsigned, and of two channels of weights, signed.
// Exactness. No intermediate saturates; k_max is the largest K with |raw| in int32, in whole groups of 8.
// Packing. neon.h with G = 8: 16 bytes are 8 k of 2 channels. The two rows of codes are joined as they are loaded.
// Ports. 32 MAC an instruction: 64 MAC/cycle where two start a cycle, 128 where four do. Tile 8 rows x 8 channels: 16 matrices, 4
//   pairs of rows, weights of 32 registers; a block of odd height computes its last row twice. Not measured on Arm.
#include "neon.h"

namespace soniq {
namespace {

template <int MR, int NV>
struct MatMul {
  static constexpr int mr = MR, nr = 2 * NV, k_group = 8;
  using Operands = ByteOperands<nr, 8, k_group, 0>;
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
  static void tile(Index<R>, int64_t taps, int64_t steps, const uint8_t* const* a, int64_t ld_a, const uint8_t* panel, int32_t* out,
                   int64_t ld_out) {
    constexpr int row_pairs = (R + 1) / 2;
    const int8_t* w = reinterpret_cast<const int8_t*>(panel);
    int32x4_t sum[row_pairs][NV];
    unroll<row_pairs * NV>([&](auto i) SONIQ_INLINE_LAMBDA { sum[i / NV][i % NV] = vdupq_n_s32(0); });
    for (int64_t t = 0; t < taps; t++, a += ld_a)
      for (int64_t s = 0; s < steps; s++, w += k_group * nr) {
        int8x16_t weight[NV];
        unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA { weight[v] = vld1q_s8(w + v * 16); });
        unroll<row_pairs>([&](auto p) SONIQ_INLINE_LAMBDA {
          constexpr int second = 2 * p + 1 < R ? 2 * p + 1 : 2 * p;
          const uint8x16_t x = vcombine_u8(vld1_u8(a[2 * p] + s * 8), vld1_u8(a[second] + s * 8));
          unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA { sum[p][v] = vusmmlaq_s32(sum[p][v], x, weight[v]); });
        });
      }
    unroll<R * NV>([&](auto i) SONIQ_INLINE_LAMBDA {
      constexpr int r = i / NV, v = i % NV;
      vst1_s32(out + r * ld_out + v * 2, r % 2 ? vget_high_s32(sum[r / 2][v]) : vget_low_s32(sum[r / 2][v]));
    });
  }
};

}  // namespace
}  // namespace soniq

SONIQ_KERNEL(gemm_u8_s8_s32_8x8x8__i8mm_usmmla, "neon,i8mm", 8, 66304, soniq::MatMul<8, 4>)
SONIQ_KERNEL(gemm_u8_z4_s32_8x8x8__i8mm_usmmla, "neon,i8mm", 8, 561432, soniq::MatMul<8, 4>)
SONIQ_KERNEL(gemm_u4_z4_s32_8x8x8__i8mm_usmmla, "neon,i8mm", 8, 9544368, soniq::MatMul<8, 4>)
