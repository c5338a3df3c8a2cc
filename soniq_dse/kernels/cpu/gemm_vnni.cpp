// W8A8, W4A8 and W4A4 by 256-bit dot products of four bytes (AVX-VNNI vpdpbusd), for processors with VNNI but without AVX-512.
//
// Equation. raw[r][n] = sum_{t,k} w[n][t][k] * u[t][r][k]: four products of an unsigned and a signed byte per 32-bit lane and
//   instruction, without saturation. 4-bit weights are bytes too; in the one-row tile, which is bound by the cache level of its
//   weights, they are codes (w + c) / 2 that a vpshufb turns into integers.
// Exactness. |raw| <= c_a c_w K (8-bit weights: c_w = 127) must fit int32; k_max is the largest such K in whole groups.
// Packing. Activations: the codes, padded with 0 to the k-group of G = 32 / (stored bits). Weights: panel =
//   [tap][k / G][nr / 8][32] bytes: byte b of a vector belongs to channel b / 4, its field j (bits 4 j where there are two) to
//   element 4 j + b % 4 of the group. What pads k meets activations of 0.
// Ports. 32 MAC an instruction, two of which start a cycle (Intel p0 and p1; Zen 5): 64 MAC/cycle. Latency 5: ten accumulators
//   hide it. Tile 6 x 2 vectors: 12 sums, 2 weights, an activation, the table = 16 registers; 8 loads for 6 cycles. Unpacking
//   takes 2 or 3 operations per vector; shared by 6 rows it still spilled and cost a third of the speed.
#include "avx2.h"

namespace soniq {
namespace {

template <int MR, int NV, int WB>
struct Dot {
  static constexpr int mr = MR, nr = 8 * NV, c_w = (1 << WB) - 1, fields = 8 / WB, k_group = 4 * fields;
  static_assert(WB == 4 || WB == 8);

  static int64_t groups(int64_t k) { return ceil_div(k, k_group); }
  static int64_t a_row_bytes(int64_t k) { return groups(k) * k_group; }
  static int64_t w_bytes(int64_t cols, int64_t taps, int64_t k) { return ceil_div(cols, nr) * taps * groups(k) * nr * 4; }

  static void pack_a(int64_t rows, int64_t k, const void* codes, int64_t ld_codes, uint8_t* out, int64_t ld_out) {
    for (int64_t r = 0; r < rows; r++) {
      __builtin_memcpy(out + r * ld_out, static_cast<const uint8_t*>(codes) + r * ld_codes, k);
      __builtin_memset(out + r * ld_out + k, 0, a_row_bytes(k) - k);
    }
  }

  static void pack_w(int64_t cols, int64_t taps, int64_t k, const int8_t* w, uint8_t* out) {
    for (int64_t n0 = 0; n0 < cols; n0 += nr)
      for (int64_t t = 0; t < taps; t++)
        for (int64_t i = 0; i < k; i += k_group)
          for (int slot = 0; slot < 4 * nr; slot++) {
            const int64_t n = n0 + slot / 4, at = i + slot % 4;
            *out++ = n < cols ? byte(w + (n * taps + t) * k, at, k) : 0;
          }
  }

  static void run(int64_t rows, int64_t cols, int64_t taps, int64_t k, const uint8_t* const* a, int64_t ld_a, const uint8_t* w,
                  void* acc, int64_t ld_acc) {
    int32_t* out = static_cast<int32_t*>(acc);
    for (int64_t n = 0; n < cols; n += nr, w += taps * groups(k) * nr * 4)
      for_row_blocks<MR>(rows, [&](auto block, int64_t r) {
        tile(block, taps, groups(k), a + r, ld_a, w, out + r * ld_acc + n, ld_acc);
      });
  }

 private:
  static uint8_t byte(const int8_t* w, int64_t at, int64_t k) {
    if constexpr (WB == 8) return static_cast<uint8_t>(at < k ? w[at] : 0);
    int fields_of = 0;
    for (int j = 0; j < fields && at + 4 * j < k; j++) fields_of |= (w[at + 4 * j] + c_w) / 2 << (j * WB);
    return static_cast<uint8_t>(fields_of);
  }

  template <int R>
  static void tile(Index<R>, int64_t taps, int64_t groups, const uint8_t* const* a, int64_t ld_a, const uint8_t* w, int32_t* out,
                   int64_t ld_out) {
    __m256i sum[R][NV];
    const uint8_t* row[R];
    unroll<R * NV>([&](auto i) SONIQ_INLINE_LAMBDA { sum[i / NV][i % NV] = _mm256_setzero_si256(); });
    for (int64_t t = 0; t < taps; t++, a += ld_a) {
      unroll<R>([&](auto r) SONIQ_INLINE_LAMBDA { row[r] = a[r]; });
#pragma GCC unroll 1
      for (int64_t g = 0; g < groups; g++, w += nr * 4)
        unroll<fields>([&](auto j) SONIQ_INLINE_LAMBDA {
          __m256i weight[NV];
          unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA { weight[v] = integers(load(w + v * 32), j); });
          unroll<R>([&](auto r) SONIQ_INLINE_LAMBDA {
            const __m256i x = broadcast4(row[r] + g * k_group + j * 4);
            unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA { sum[r][v] = _mm256_dpbusd_avx_epi32(sum[r][v], x, weight[v]); });
            SONIQ_ROW_BARRIER();
          });
        });
    }
    unroll<R * NV>([&](auto i) SONIQ_INLINE_LAMBDA { store(out + i / NV * ld_out + i % NV * 8, sum[i / NV][i % NV]); });
  }

  static SONIQ_INLINE __m256i integers(__m256i packed, int field) {
    if constexpr (WB == 8) return packed;
    return odd_integers(_mm256_and_si256(field ? _mm256_srli_epi16(packed, 4) : packed, _mm256_set1_epi8(15)));
  }
};

}  // namespace
}  // namespace soniq

SONIQ_KERNEL(gemm_u8_s8_s32_6x16x4__avxvnni_dot, "avx2,avxvnni", 4, 66308, soniq::Dot<6, 2, 8>)
SONIQ_KERNEL(gemm_u8_z4_s32_6x16x4__avxvnni_dot, "avx2,avxvnni", 4, 561428, soniq::Dot<6, 2, 8>)
SONIQ_KERNEL(gemm_u4_z4_s32_6x16x4__avxvnni_dot, "avx2,avxvnni", 4, 9544368, soniq::Dot<6, 2, 8>)
SONIQ_KERNEL(gemm_u8_s8_s32_1x64x4__avxvnni_dot, "avx2,avxvnni", 4, 66308, soniq::Dot<1, 8, 8>)
SONIQ_KERNEL(gemm_u8_z4_s32_1x64x8__avxvnni_dot, "avx2,avxvnni", 8, 561432, soniq::Dot<1, 8, 4>)
