// W8A8 by 16-bit products (AVX2 vpmaddwd), for narrow layers: pixels packed for it lie side by side (gemm_fip.cpp is faster, but
// its rows end with a sum).
//
// Equation. raw[r][n] = sum_{t,k} w[n][t][k] * u[t][r][k]: activation codes and weights widened to 16 bits.
// Exactness. vpmaddwd adds two products in int32, |sum| <= 2 * 127 * 255; vpmaddubsw, twice as wide, would saturate its int16 at
//   32767. (Libraries that use it on machines without VNNI ask for 7-bit weights.) k_max = floor((2^31 - 1) / (127 * 255)),
//   rounded down to whole groups.
// Packing. Activations: [k] u16. Weights: panel = [tap][k / 2][nr][2] s8, 16 bytes are 2 k of 8 channels. What pads k is 0 on both
//   sides.
// Ports. Per 16 MAC one vpmaddwd and one vpaddd, and a sixth of a vpmovsxbw: at most 22 MAC/cycle where three vector operations
//   start a cycle (Intel from Ice Lake), 30 where four do and two are products (Zen 3, 4). Weights kept as s16 need no vpmovsxbw
//   but twice the bytes, and were not faster. Tile 6 x 2 vectors: 12 sums, 2 weights, an activation, a temporary = 16
//   registers; 8 loads for 9 cycles. The carried chain is vpaddd, one cycle.
#include "avx2.h"

namespace soniq {
namespace {

template <int MR, int NV>
struct WideMulAdd {
  static constexpr int mr = MR, nr = 8 * NV, k_group = 2;

  static int64_t pairs(int64_t k) { return ceil_div(k, k_group); }
  static int64_t a_row_bytes(int64_t k) { return pairs(k) * 4; }
  static int64_t panel_bytes(int64_t taps, int64_t k) { return taps * pairs(k) * nr * 2; }
  static int64_t w_bytes(int64_t cols, int64_t taps, int64_t k) { return ceil_div(cols, nr) * panel_bytes(taps, k); }

  static void pack_a(int64_t rows, int64_t k, const void* codes, int64_t ld_codes, uint8_t* out, int64_t ld_out) {
    for (int64_t r = 0; r < rows; r++) {
      const uint8_t* src = static_cast<const uint8_t*>(codes) + r * ld_codes;
      uint16_t* dst = reinterpret_cast<uint16_t*>(out + r * ld_out);
      for (int64_t i = 0; i < k; i++) dst[i] = src[i];
      if (k % 2) dst[k] = 0;
    }
  }

  static void pack_w(int64_t cols, int64_t taps, int64_t k, const int8_t* w, uint8_t* out) {
    for (int64_t n0 = 0; n0 < cols; n0 += nr)
      for (int64_t t = 0; t < taps; t++)
        for (int64_t i = 0; i < k; i += 2)
          for (int slot = 0; slot < 2 * nr; slot++) {
            const int64_t n = n0 + slot / 2, at = i + slot % 2;
            *out++ = static_cast<uint8_t>(n < cols && at < k ? w[(n * taps + t) * k + at] : 0);
          }
  }

  static void run(int64_t rows, int64_t cols, int64_t taps, int64_t k, const uint8_t* const* a, int64_t ld_a, const uint8_t* w,
                  void* acc, int64_t ld_acc) {
    int32_t* out = static_cast<int32_t*>(acc);
    for (int64_t n = 0; n < cols; n += nr, w += panel_bytes(taps, k))
      for_row_blocks<MR>(rows, [&](auto block, int64_t r) {
        tile(block, taps, pairs(k), a + r, ld_a, w, out + r * ld_acc + n, ld_acc);
      });
  }

 private:
  template <int R>
  static void tile(Index<R>, int64_t taps, int64_t pairs, const uint8_t* const* a, int64_t ld_a, const uint8_t* w, int32_t* out,
                   int64_t ld_out) {
    Ints sum[R][NV];
    const uint8_t* row[R];
    unroll<R * NV>([&](auto i) SONIQ_INLINE_LAMBDA { sum[i / NV][i % NV] = Ints{}; });
    for (int64_t t = 0; t < taps; t++, a += ld_a) {
      unroll<R>([&](auto r) SONIQ_INLINE_LAMBDA { row[r] = a[r]; });
#pragma GCC unroll 1
      for (int64_t i = 0; i < pairs; i++, w += 2 * nr) {
        __m256i weight[NV];
        unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA { weight[v] = widened(w + v * 16); });
        unroll<R>([&](auto r) SONIQ_INLINE_LAMBDA {
          const __m256i x = broadcast4(row[r] + i * 4);
          unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA { sum[r][v] += (Ints)_mm256_madd_epi16(weight[v], x); });
          SONIQ_ROW_BARRIER();
        });
      }
    }
    unroll<R * NV>([&](auto i) SONIQ_INLINE_LAMBDA { store(out + i / NV * ld_out + i % NV * 8, (__m256i)sum[i / NV][i % NV]); });
  }

  static SONIQ_INLINE __m256i widened(const uint8_t* w) {
    return _mm256_cvtepi8_epi16(_mm_load_si128(reinterpret_cast<const __m128i*>(w)));
  }
};

}  // namespace
}  // namespace soniq

SONIQ_KERNEL(gemm_u8_s8_s32_6x16x2__avx2_maddwd, "avx2", 2, 66310, soniq::WideMulAdd<6, 2>)
