// W4A4, W4A8, W2A4 and W2A8 by byte products summed in 16 bits (AVX2 vpmaddubsw).
//
// Equation. raw[r][n] = sum_{t,k} w[n][t][k] * u[t][r][k]: activation codes as unsigned bytes, weights as signed ones.
// Exactness. vpmaddubsw adds two products in saturating int16; a block adds STEPS of these, |sum| <= 2 STEPS c_w c_a < 2^15, so
//   nothing saturates: 4 steps for W4A8, 21 for W2A8, 72 for W4A4, 364 for W2A4. vpmaddwd by ones then takes the block to int32.
//   k_max = floor((2^31 - 1) / (c_w c_a)), rounded down to whole groups. (u8 with 8-bit weights would saturate: gemm_fip.)
// Packing. Activations: the codes. Weights: panel = [tap][k / 4][nr][4] signed bytes, a vector is 4 k of 8 channels. What pads k is
//   0 on both sides.
// Ports. Per 32 MAC one vpmaddubsw and one vpaddw, per block and vector a vpmaddwd and a vpaddd: at most 64 MAC/cycle where four
//   vector operations start a cycle, two of them products (W4A8: 51), 48 where three do (Intel from Ice Lake); with vpmaddwd alone
//   32 and 24. Zen 3 sends additions to the product pipes too and stops at 52 (measured 47, W4A8 39). Tile
//   6 x 2 vectors: 12 sums, 2 weights, an activation, a temporary = 16 registers; the 32-bit sums live in L1.
#include "avx2.h"

namespace soniq {
namespace {

template <int MR, int NV, int WB, int AB>
struct MulAdd {
  using P = BytePairs<WB, AB>;
  // Where few steps fill a block it is unrolled, and k padded to whole blocks.
  static constexpr bool fixed_blocks = P::block_steps <= 4;
  static constexpr int mr = MR, nr = 8 * NV, k_group = 4 * (fixed_blocks ? P::block_steps : 1), step_bytes = 4 * nr;

  static int64_t padded(int64_t k) { return ceil_div(k, k_group) * k_group; }
  static int64_t a_row_bytes(int64_t k) { return padded(k); }
  static int64_t w_bytes(int64_t cols, int64_t taps, int64_t k) { return ceil_div(cols, nr) * taps * padded(k) * nr; }

  static void pack_a(int64_t rows, int64_t k, const void* codes, int64_t ld_codes, uint8_t* out, int64_t ld_out) {
    for (int64_t r = 0; r < rows; r++) {
      __builtin_memcpy(out + r * ld_out, static_cast<const uint8_t*>(codes) + r * ld_codes, k);
      __builtin_memset(out + r * ld_out + k, 0, padded(k) - k);
    }
  }

  static void pack_w(int64_t cols, int64_t taps, int64_t k, const int8_t* w, uint8_t* out) {
    for (int64_t n0 = 0; n0 < cols; n0 += nr)
      for (int64_t t = 0; t < taps; t++)
        for (int64_t i = 0; i < padded(k); i += 4)
          for (int slot = 0; slot < 4 * nr; slot++) {
            const int64_t n = n0 + slot / 4, at = i + slot % 4;
            *out++ = static_cast<uint8_t>(n < cols && at < k ? w[(n * taps + t) * k + at] : 0);
          }
  }

  static void run(int64_t rows, int64_t cols, int64_t taps, int64_t k, const uint8_t* const* a, int64_t ld_a, const uint8_t* w,
                  void* acc, int64_t ld_acc) {
    int32_t* out = static_cast<int32_t*>(acc);
    for (int64_t n = 0; n < cols; n += nr, w += taps * padded(k) * nr)
      for_row_blocks<MR>(rows, [&](auto block, int64_t r) {
        tile(block, taps, padded(k) / 4, a + r, ld_a, w, out + r * ld_acc + n, ld_acc);
      });
  }

 private:
  template <int R>
  static void tile(Index<R>, int64_t taps, int64_t steps, const uint8_t* const* a, int64_t ld_a, const uint8_t* w, int32_t* out,
                   int64_t ld_out) {
    Words words[R][NV];
    alignas(32) int32_t sum[R][NV][8] = {};
    const uint8_t* row[R];
    for (int64_t t = 0; t < taps; t++, a += ld_a) {
      unroll<R>([&](auto r) SONIQ_INLINE_LAMBDA { row[r] = a[r]; });
      for (int64_t s = 0, end; s < steps; s = end) {
        end = fixed_blocks ? s + P::block_steps : min64(s + P::block_steps, steps);
        unroll<R * NV>([&](auto i) SONIQ_INLINE_LAMBDA { words[i / NV][i % NV] = Words{}; });
#pragma GCC unroll 1
        for (int64_t i = s; i < end; i++, w += step_bytes) step(row, i, w, words);
        const __m256i ones = P::ones();
        unroll<R * NV>([&](auto i) SONIQ_INLINE_LAMBDA {
          int32_t* total = sum[i / NV][i % NV];
          store(total, _mm256_add_epi32(load(total), P::widened(words[i / NV][i % NV], ones)));
        });
      }
    }
    unroll<R * NV>([&](auto i) SONIQ_INLINE_LAMBDA { store(out + i / NV * ld_out + i % NV * 8, load(sum[i / NV][i % NV])); });
  }

  template <int R>
  static SONIQ_INLINE void step(const uint8_t* const (&row)[R], int64_t i, const uint8_t* w, Words (&words)[R][NV]) {
    __m256i weight[NV];
    unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA { weight[v] = load(w + v * 32); });
    unroll<R>([&](auto r) SONIQ_INLINE_LAMBDA {
      const __m256i x = broadcast4(row[r] + i * 4);
      unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA { words[r][v] += P::products(x, weight[v]); });
      SONIQ_ROW_BARRIER();
    });
  }
};

}  // namespace
}  // namespace soniq

SONIQ_KERNEL(gemm_u4_z4_s32_6x16x4__avx2_maddubs, "avx2", 4, 9544368, soniq::MulAdd<6, 2, 4, 4>)
SONIQ_KERNEL(gemm_u8_z4_s32_6x16x16__avx2_maddubs, "avx2", 16, 561424, soniq::MulAdd<6, 2, 4, 8>)
SONIQ_KERNEL(gemm_u4_z2_s32_6x16x4__avx2_maddubs, "avx2", 4, 47721856, soniq::MulAdd<6, 2, 2, 4>)
SONIQ_KERNEL(gemm_u8_z2_s32_6x16x4__avx2_maddubs, "avx2", 4, 2807168, soniq::MulAdd<6, 2, 2, 8>)
