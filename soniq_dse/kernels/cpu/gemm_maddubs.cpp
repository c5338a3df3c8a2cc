// W4A4, W4A8, W2A8 and W1A8 by byte products summed in 16 bits (AVX2 vpmaddubsw).
//
// Equation. raw[r][n] = sum_{t,k} w[n][t][k] * u[t][r][k]: activation codes as unsigned bytes, weights as signed ones.
// Exactness. vpmaddubsw adds two products in saturating int16; a block adds STEPS of these, |sum| <= 2 STEPS c_w c_a < 2^15 (u8 z4:
//   30600 for 4 steps; u4 z4: 1800), so nothing saturates. vpmaddwd by ones then takes the block to int32, once per 4 STEPS k.
//   k_max = floor((2^31 - 1) / (c_w c_a)), rounded down to whole blocks. (u8 with 8-bit weights would saturate: gemm_maddwd.)
// Packing. Activations: the codes. Weights: panel = [tap][k / 4][nr][4] signed bytes, a vector is 4 k of 8 channels; what pads k
//   is 0 on both sides. Nibbles (the one-row tile, bound by the weights' cache level): two such vectors in one, the even one in the
//   low nibbles, codes (w + c) / 2 that a vpshufb turns into integers again.
// Ports. Per block and 8 channels STEPS vpmaddubsw, STEPS - 1 vpaddw, one vpmaddwd and one vpaddd: 2 STEPS + 1 operations for
//   32 STEPS MAC, at most 43 MAC/cycle where three vector operations start a cycle, two of them products (Intel from Ice Lake),
//   57 where four do (Zen 3, 4); with vpmaddwd alone 24 and 32. Tile 4 x 2 vectors: 8 sums, 4 activations, ones, 3 temporaries
//   = 16 registers; weights are operands in memory, one load per product.
#include "avx2.h"

namespace soniq {
namespace {

template <int MR, int NV, int WB, int AB, bool Nibbles = false>
struct MulAdd {
  static constexpr int mr = MR, nr = 8 * NV, steps = 4, k_group = 4 * steps, c_w = (1 << WB) - 1, c_a = (1 << AB) - 1;
  static_assert(!Nibbles || WB == 4, "nibbles hold 4 bits");
  static_assert(2 * steps * c_w * c_a < 1 << 15, "a block's sums must fit int16");
  static constexpr int block_bytes = nr * k_group / (Nibbles ? 2 : 1);

  static int64_t blocks(int64_t k) { return ceil_div(k, k_group); }
  static int64_t a_row_bytes(int64_t k) { return blocks(k) * k_group; }
  static int64_t w_bytes(int64_t cols, int64_t taps, int64_t k) { return ceil_div(cols, nr) * taps * blocks(k) * block_bytes; }

  static void pack_a(int64_t rows, int64_t k, const void* codes, int64_t ld_codes, uint8_t* out, int64_t ld_out) {
    const int64_t padding = a_row_bytes(k) - k;
    for (int64_t r = 0; r < rows; r++) {
      __builtin_memcpy(out + r * ld_out, static_cast<const uint8_t*>(codes) + r * ld_codes, k);
      __builtin_memset(out + r * ld_out + k, 0, padding);
    }
  }

  static void pack_w(int64_t cols, int64_t taps, int64_t k, const int8_t* w, uint8_t* out) {
    for (int64_t n0 = 0; n0 < cols; n0 += nr)
      for (int64_t t = 0; t < taps; t++)
        for (int64_t i = 0; i < blocks(k) * k_group; i += k_group)
          for (int step = 0; step < steps; step += Nibbles ? 2 : 1)
            for (int slot = 0; slot < 4 * nr; slot++) {
              const int64_t n = n0 + slot / 4, at = i + step * 4 + slot % 4;
              *out++ = byte(w + (n * taps + t) * k, n < cols ? at : k, k);
            }
  }

  static void run(int64_t rows, int64_t cols, int64_t taps, int64_t k, const uint8_t* const* a, int64_t ld_a, const uint8_t* w,
                  void* acc, int64_t ld_acc) {
    int32_t* out = static_cast<int32_t*>(acc);
    for (int64_t n = 0; n < cols; n += nr, w += taps * blocks(k) * block_bytes)
      for_row_blocks<MR>(rows, [&](auto block, int64_t r) {
        tile(block, taps, blocks(k), a + r, ld_a, w, out + r * ld_acc + n, ld_acc);
      });
  }

 private:
  static uint8_t byte(const int8_t* w, int64_t at, int64_t k) {
    const auto code = [&](int64_t i) { return i < k ? (w[i] + c_w) / 2 : 0; };
    if constexpr (Nibbles) return static_cast<uint8_t>(at < k ? code(at) | code(at + 4) << 4 : 0);
    return static_cast<uint8_t>(at < k ? w[at] : 0);
  }

  template <int R>
  static void tile(Index<R>, int64_t taps, int64_t blocks, const uint8_t* const* a, int64_t ld_a, const uint8_t* w, int32_t* out,
                   int64_t ld_out) {
    Ints sum[R][NV];
    const uint8_t* row[R];
    unroll<R * NV>([&](auto i) SONIQ_INLINE_LAMBDA { sum[i / NV][i % NV] = Ints{}; });
    for (int64_t t = 0; t < taps; t++, a += ld_a) {
      unroll<R>([&](auto r) SONIQ_INLINE_LAMBDA { row[r] = a[r]; });
#pragma GCC unroll 1
      for (int64_t b = 0; b < blocks; b++, w += block_bytes)
        unroll<R>([&](auto r) SONIQ_INLINE_LAMBDA {
          __m256i x[steps];
          unroll<steps>([&](auto s) SONIQ_INLINE_LAMBDA { x[s] = broadcast4(row[r] + b * k_group + s * 4); });
          unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA { sum[r][v] += block(x, w, v); });
          SONIQ_ROW_BARRIER();
        });
    }
    unroll<R * NV>([&](auto i) SONIQ_INLINE_LAMBDA { store(out + i / NV * ld_out + i % NV * 8, (__m256i)sum[i / NV][i % NV]); });
  }

  // Sums of one block for the 8 channels of vector v.
  static SONIQ_INLINE Ints block(const __m256i (&x)[steps], const uint8_t* w, int v) {
    __m256i weight[steps];
    unroll<steps>([&](auto s) SONIQ_INLINE_LAMBDA { weight[s] = weights(w, v, s); });
    __m256i words = _mm256_maddubs_epi16(x[0], weight[0]);
    unroll<steps - 1>([&](auto s) SONIQ_INLINE_LAMBDA {
      words = _mm256_add_epi16(words, _mm256_maddubs_epi16(x[s + 1], weight[s + 1]));
    });
    return (Ints)_mm256_madd_epi16(words, _mm256_set1_epi16(1));
  }

  static SONIQ_INLINE __m256i weights(const uint8_t* w, int v, int step) {
    if constexpr (!Nibbles) return load(w + (step * NV + v) * 32);
    const __m256i low = _mm256_set1_epi8(15), both = load(w + (step / 2 * NV + v) * 32);
    return odd_integers(_mm256_and_si256(step % 2 ? _mm256_srli_epi16(both, 4) : both, low));
  }
};

}  // namespace
}  // namespace soniq

SONIQ_KERNEL(gemm_u4_z4_s32_4x16x16__avx2_maddubs, "avx2", 16, 9544368, soniq::MulAdd<4, 2, 4, 4>)
SONIQ_KERNEL(gemm_u8_z4_s32_4x16x16__avx2_maddubs, "avx2", 16, 561424, soniq::MulAdd<4, 2, 4, 8>)
SONIQ_KERNEL(gemm_u8_z4_s32_1x32x16__avx2_maddubs, "avx2", 16, 561424, soniq::MulAdd<1, 4, 4, 8, true>)
