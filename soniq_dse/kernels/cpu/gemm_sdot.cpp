// W4A4, W4A8 and W8A8 by signed dot products of four bytes (Arm sdot).
//
// Equation. raw[r][n] = sum_{t,k} w[n][t][k] * u[t][r][k]; 8-bit codes travel as u - 128, see neon.h.
// Exactness. sdot adds four products to int32; k_max is the largest K with |raw| in int32, in whole groups of 16.
// Packing. neon.h with G = 4: 16 bytes are 4 k of 4 channels; 16 bytes of a row are 4 such k, chosen by lane.
// Ports. 16 MAC an instruction: 32 MAC/cycle where two start a cycle, 64 where four do. Latency 3-4. Tile 6 x 4 vectors of 4 channels:
//   24 sums, 6 activations and 2 weights = 32 registers. One row: 4-bit weights are codes, looked up by tbl. Not measured on Arm.
#include "neon.h"

namespace soniq {
namespace {

template <int MR, int NV, class Operands>
struct Dot {
  static constexpr int mr = MR, nr = 4 * NV, k_group = 16;
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
    int32x4_t sum[R][NV];
    unroll<R * NV>([&](auto i) SONIQ_INLINE_LAMBDA { sum[i / NV][i % NV] = Operands::start(panel, i % NV * 4); });
    for (int64_t t = 0; t < taps; t++, a += ld_a)
      for (int64_t b = 0; b < blocks; b++, w += Operands::group_bytes) {
        int8x16_t x[R];
        unroll<R>([&](auto r) SONIQ_INLINE_LAMBDA { x[r] = vreinterpretq_s8_u8(vld1q_u8(a[r] + b * k_group)); });
        unroll<4 * NV>([&](auto lv) SONIQ_INLINE_LAMBDA {
          constexpr int lane = lv / NV, v = lv % NV;
          const int8x16_t weight = Operands::vector(w, lv);
          unroll<R>([&](auto r) SONIQ_INLINE_LAMBDA { sum[r][v] = vdotq_laneq_s32(sum[r][v], weight, x[r], lane); });
        });
      }
    unroll<R * NV>([&](auto i) SONIQ_INLINE_LAMBDA { vst1q_s32(out + i / NV * ld_out + i % NV * 4, sum[i / NV][i % NV]); });
  }
};

}  // namespace
}  // namespace soniq

SONIQ_KERNEL(gemm_u8_s8_s32_6x16x16__dotprod_sdot, "neon,dotprod", 16, 66304, soniq::Dot<6, 4, soniq::ByteOperands<16, 4, 16, 128>>)
SONIQ_KERNEL(gemm_u8_z4_s32_6x16x16__dotprod_sdot, "neon,dotprod", 16, 561424, soniq::Dot<6, 4, soniq::ByteOperands<16, 4, 16, 128>>)
SONIQ_KERNEL(gemm_u4_z4_s32_6x16x16__dotprod_sdot, "neon,dotprod", 16, 9544368, soniq::Dot<6, 4, soniq::ByteOperands<16, 4, 16, 0>>)
SONIQ_KERNEL(gemm_u8_s8_s32_1x32x16__dotprod_sdot, "neon,dotprod", 16, 66304, soniq::Dot<1, 8, soniq::ByteOperands<32, 4, 16, 128>>)
SONIQ_KERNEL(gemm_u8_z4_s32_1x32x16__dotprod_sdot, "neon,dotprod", 16, 561424, soniq::Dot<1, 8, soniq::NibbleOperands<32, 4, 16, 128>>)
SONIQ_KERNEL(gemm_u4_z4_s32_1x32x16__dotprod_sdot, "neon,dotprod", 16, 9544368, soniq::Dot<1, 8, soniq::NibbleOperands<32, 4, 16, 0>>)
