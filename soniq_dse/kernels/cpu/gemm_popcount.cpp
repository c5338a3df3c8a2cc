// W1A1 and W1A2 by XOR and population count (AVX512_VPOPCNTDQ).
//
// Equation. A zero-free b-bit activation is z_a = sum_p 2^p s_p with planes s_p in {-1,+1} (bit p of its code: 0 is -1), a
//   1-bit weight is one such plane. Over a k of K padded elements, sum s_w s_p = K - 2 popcount(w xor a_p), hence
//     raw = c_a K - 2 sum_p 2^p popcount(w xor a_p),  c_a = 2^b - 1.
// Exactness. Counts grow in 64-bit lanes; |raw| <= c_a K must fit int32: K <= (2^31 - 1) / c_a, rounded down to whole
//   words.
// Packing. Activations: 64 elements to a 64-bit word, element i at bit i; row = [k / 64][plane] words. Weights: panel =
//   [tap][k / 64][nr] words; a vector is the 8 even or the 8 odd of 16 output channels at one k-group.
// Ports. Per vector and plane one vpxorq (the activation word broadcast), one vpopcntq, one vpaddq: 512 MAC in 3
//   operations, 1.5 cycles where two 512-bit operations start a cycle and one of them may be a vpopcntq: 341 MAC/cycle (Zen
//   4: any two pipes, one with vpopcntq; Intel from Ice Lake: p0 and p5, vpopcntq on p5). The one dependence carried around
//   the loop is the vpaddq of each accumulator, one cycle. Tile 6 x 4 vectors: 24 accumulators, 4 weights, a word, 3
//   temporaries = 32 registers; 10 loads for 36 cycles. The one-row tile streams its weights and is bound by the cache level
//   they come from.
#include "avx512.h"

namespace soniq {
namespace {

template <int MR, int NV, int PLANES>
struct Popcount {
  static constexpr int mr = MR, nr = 8 * NV;
  static constexpr int64_t word_bits = 64, c_a = (1 << PLANES) - 1;

  static int64_t words(int64_t k) { return ceil_div(k, word_bits); }
  static int64_t a_row_bytes(int64_t k) { return words(k) * PLANES * 8; }
  static int64_t w_bytes(int64_t cols, int64_t taps, int64_t k) { return ceil_div(cols, nr) * taps * words(k) * nr * 8; }

  static void pack_a(int64_t rows, int64_t k, const void* codes, int64_t ld_codes, uint8_t* out, int64_t ld_out) {
    for (int64_t r = 0; r < rows; r++) {
      const uint8_t* src = static_cast<const uint8_t*>(codes) + r * ld_codes;
      uint64_t* dst = reinterpret_cast<uint64_t*>(out + r * ld_out);
      for (int64_t i = 0; i < k; i += word_bits) {
        const __mmask64 live = k - i >= word_bits ? ~0ull : (1ull << (k - i)) - 1;
        const __m512i u = _mm512_maskz_loadu_epi8(live, src + i);
        for (int p = 0; p < PLANES; p++) *dst++ = _mm512_test_epi8_mask(u, _mm512_set1_epi8(1 << p));
      }
    }
  }

  static void pack_w(int64_t cols, int64_t taps, int64_t k, const int8_t* w, uint8_t* out) {
    uint64_t* dst = reinterpret_cast<uint64_t*>(out);
    for (int64_t n0 = 0; n0 < cols; n0 += nr)
      for (int64_t t = 0; t < taps; t++)
        for (int64_t i = 0; i < k; i += word_bits)
          for (int slot = 0; slot < nr; slot++) {
            const int64_t n = n0 + channel_of(slot);
            *dst++ = n < cols ? word(w + (n * taps + t) * k, i, k) : 0;
          }
  }

  static void run(int64_t rows, int64_t cols, int64_t taps, int64_t k, const uint8_t* const* a, int64_t ld_a, const uint8_t* w,
                  void* acc, int64_t ld_acc) {
    int32_t* out = static_cast<int32_t*>(acc);
    const int64_t panel_bytes = taps * words(k) * nr * 8;
    for (int64_t n = 0; n < cols; n += nr, w += panel_bytes)
      for_row_blocks<MR>(rows, [&](auto block, int64_t r) {
        tile(block, taps, words(k), a + r, ld_a, w, out + r * ld_acc + n, ld_acc);
      });
  }

 private:
  // Even channels of 16 in one vector, odd ones in the next: their counts then merge into 16 int32 by a shift and an or.
  static int channel_of(int slot) { return slot / 16 * 16 + slot % 8 * 2 + slot / 8 % 2; }

  static uint64_t word(const int8_t* w, int64_t first, int64_t k) {
    uint64_t bits = 0;
    for (int64_t i = first; i < min64(first + word_bits, k); i++) bits |= uint64_t(w[i] > 0) << (i - first);
    return bits;
  }

  template <int R>
  static void tile(Index<R>, int64_t taps, int64_t words, const uint8_t* const* a, int64_t ld_a, const uint8_t* w, int32_t* out,
                   int64_t ld_out) {
    __m512i count[R][NV][PLANES], weight[NV];
    const uint64_t* row[R];
    unroll<R * NV * PLANES>([&](auto i) SONIQ_INLINE_LAMBDA { (&count[0][0][0])[i] = _mm512_setzero_si512(); });
    for (int64_t t = 0; t < taps; t++, a += ld_a) {
      unroll<R>([&](auto r) SONIQ_INLINE_LAMBDA { row[r] = reinterpret_cast<const uint64_t*>(a[r]); });
#pragma GCC unroll 1
      for (int64_t i = 0; i < words; i++, w += NV * 64) {
        if constexpr (R == 1) prefetch_stream<NV>(w);
unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA { weight[v] = _mm512_load_si512(w + v * 64); });
        unroll<R * PLANES>([&](auto rp) SONIQ_INLINE_LAMBDA {
          constexpr int r = rp / PLANES, p = rp % PLANES;
          const __m512i x = _mm512_set1_epi64(row[r][i * PLANES + p]);
          unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA {
            count[r][v][p] = _mm512_add_epi64(count[r][v][p], _mm512_popcnt_epi64(_mm512_xor_si512(weight[v], x)));
          });
          SONIQ_ROW_BARRIER();
        });
      }
    }
    const __m512i bias = _mm512_set1_epi32(static_cast<int32_t>(c_a * taps * words * word_bits));
    unroll<R * NV / 2>([&](auto rq) SONIQ_INLINE_LAMBDA {
      constexpr int r = rq / (NV / 2), q = rq % (NV / 2);
      __m512i raw = bias;
      unroll<PLANES>([&](auto p) SONIQ_INLINE_LAMBDA {
        const __m512i odd = _mm512_slli_epi64(count[r][2 * q + 1][p], 32);
        const __m512i both = _mm512_slli_epi32(_mm512_or_si512(count[r][2 * q][p], odd), p);
        raw = _mm512_sub_epi32(_mm512_sub_epi32(raw, both), both);
      });
      _mm512_storeu_si512(out + r * ld_out + q * 16, raw);
    });
  }
};

}  // namespace
}  // namespace soniq

SONIQ_KERNEL(gemm_z1_z1_s32_6x32x64__avx512vpopcntdq_popcount, "avx512f,avx512bw,avx512vpopcntdq", 64, 2147483584, soniq::Popcount<6, 4, 1>)
SONIQ_KERNEL(gemm_z1_z1_s32_12x16x64__avx512vpopcntdq_popcount, "avx512f,avx512bw,avx512vpopcntdq", 64, 2147483584, soniq::Popcount<12, 2, 1>)
SONIQ_KERNEL(gemm_z1_z1_s32_1x64x64__avx512vpopcntdq_popcount, "avx512f,avx512bw,avx512vpopcntdq", 64, 2147483584, soniq::Popcount<1, 8, 1>)
SONIQ_KERNEL(gemm_z2_z1_s32_3x32x64__avx512vpopcntdq_popcount, "avx512f,avx512bw,avx512vpopcntdq", 64, 715827840, soniq::Popcount<3, 4, 2>)
SONIQ_KERNEL(gemm_z2_z1_s32_1x64x64__avx512vpopcntdq_popcount, "avx512f,avx512bw,avx512vpopcntdq", 64, 715827840, soniq::Popcount<1, 8, 2>)
