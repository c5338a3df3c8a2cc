// W8A8 by Winograd's inner product (S. Winograd, "A New Algorithm for Inner Product", IEEE Trans. Computers C-17, 1968): half
// the multiplications of a plain sum, for additions that are as cheap (AVX2 vpaddw, vpmaddwd).
//
// Equation. Over the four elements 4 i .. 4 i + 3 of a step, in 16 bits,
//   (u0 + w2) (u2 + w0) + (u1 + w3) (u3 + w1) = w0 u0 + w1 u1 + w2 u2 + w3 u3 + (u0 u2 + u1 u3) + (w0 w2 + w1 w3),
//   so that raw[r][n] = sum_{t,i} (left side) - sum_t xi[t][r] - eta[n]; xi is made by pack_a, eta by pack_w.
// Exactness. Factors lie in -127..382, two products in 19 bits; sums are taken modulo 2^32, and raw itself fits int32 for
//   K <= k_max = floor((2^31 - 1) / (127 * 255)), rounded down to whole steps.
// Packing. Activations: [k] u16, k padded to 32, then xi (int32). Weights: panel = -eta (int32) [nr], then
//   [tap][step][2][nr][2] s16: the elements 2, 3 of a step, which meet the activations 0, 1, before its elements 0, 1. What pads k
//   is 0 on both sides.
// Ports. Per 32 MAC two vpaddw, one vpmaddwd and one vpaddd: at most 32 MAC/cycle where four vector operations start a cycle. Zen 3
//   does that in registers, and 26 to 27 with the loads; the plain sum, two vpmaddwd and two vpaddd, stops at 26 in registers,
//   since additions are sent to the product pipes too. Tile 4 x 2 vectors: 8 sums, 4 weights, 2 activations, 2 temporaries = 16
//   registers; 12 loads for 8 cycles. Rows are taken in chunks, whose packed activations stay in L2 while the panels pass.
#include "avx2.h"

namespace soniq {
namespace {

template <int MR, int NV>
struct InnerProduct {
  static constexpr int mr = MR, nr = 8 * NV, k_group = 4, chunk = 64;
  static constexpr int64_t eta_bytes = nr * 4, step_bytes = nr * 8;

  static int64_t steps(int64_t k) { return ceil_div(k, k_group); }
  static int64_t xi_offset(int64_t k) { return ceil_div(k, 32) * 64; }
  static int64_t a_row_bytes(int64_t k) { return xi_offset(k) + 4; }
  static int64_t panel_bytes(int64_t taps, int64_t k) { return eta_bytes + taps * steps(k) * step_bytes; }
  static int64_t w_bytes(int64_t cols, int64_t taps, int64_t k) { return ceil_div(cols, nr) * panel_bytes(taps, k); }

  static void pack_a(int64_t rows, int64_t k, const void* codes, int64_t ld_codes, uint8_t* out, int64_t ld_out) {
    for (int64_t r = 0; r < rows; r++) {
      const uint8_t* src = static_cast<const uint8_t*>(codes) + r * ld_codes;
      uint8_t* dst = out + r * ld_out;
      __m256i xi = _mm256_setzero_si256();
      int64_t i = 0;
      for (; i + 32 <= k; i += 32) xi = _mm256_add_epi32(xi, widen(src + i, dst + i * 2));
      if (i < k) {
        alignas(32) uint8_t rest[32];
        store(rest, load_codes(src + i, k - i));
        xi = _mm256_add_epi32(xi, widen(rest, dst + i * 2));
      }
      const int32_t sum = total(xi);
      __builtin_memcpy(dst + xi_offset(k), &sum, 4);
    }
  }

  static void pack_w(int64_t cols, int64_t taps, int64_t k, const int8_t* w, uint8_t* out) {
    for (int64_t n0 = 0; n0 < cols; n0 += nr, out += panel_bytes(taps, k)) {
      int32_t* minus_eta = reinterpret_cast<int32_t*>(out);
      int16_t* words = reinterpret_cast<int16_t*>(out + eta_bytes);
      for (int n = 0; n < nr; n++) minus_eta[n] = 0;
      for (int64_t t = 0; t < taps; t++)
        for (int64_t i = 0; i < k; i += k_group, words += 4 * nr)
          for (int64_t n = n0; n < n0 + nr; n++) {
            const auto at = [&](int e) { return n < cols && i + e < k ? w[(n * taps + t) * k + i + e] : 0; };
            for (int e = 0; e < 2; e++) {
              words[(n - n0) * 2 + e] = static_cast<int16_t>(at(2 + e));
              words[(nr + n - n0) * 2 + e] = static_cast<int16_t>(at(e));
              minus_eta[n - n0] -= at(e) * at(2 + e);
            }
          }
    }
  }

  static void run(int64_t rows, int64_t cols, int64_t taps, int64_t k, const uint8_t* const* a, int64_t ld_a, const uint8_t* w,
                  void* acc, int64_t ld_acc) {
    int32_t* out = static_cast<int32_t*>(acc);
    for (int64_t first = 0; first < rows; first += chunk)
      for (int64_t n = 0; n < cols; n += nr)
        for_row_blocks<MR>(min64(chunk, rows - first), [&](auto block, int64_t r) {
          r += first;
          tile(block, taps, k, a + r, ld_a, w + n / nr * panel_bytes(taps, k), out + r * ld_acc + n, ld_acc);
        });
  }

 private:
  template <int R>
  static void tile(Index<R>, int64_t taps, int64_t k, const uint8_t* const* a, int64_t ld_a, const uint8_t* w, int32_t* out,
                   int64_t ld_out) {
    __m256i sum[R][NV];
    const uint8_t* row[R];
    unroll<R * NV>([&](auto i) SONIQ_INLINE_LAMBDA { sum[i / NV][i % NV] = load(w + i % NV * 32); });
    w += eta_bytes;
    for (int64_t t = 0; t < taps; t++, a += ld_a) {
      unroll<R>([&](auto r) SONIQ_INLINE_LAMBDA {
        row[r] = a[r];
        const __m256i xi = broadcast4(row[r] + xi_offset(k));
        unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA { sum[r][v] = _mm256_sub_epi32(sum[r][v], xi); });
      });
      const int64_t end = steps(k);
#pragma GCC unroll 1
      for (int64_t i = 0; i < end; i++, w += step_bytes) {
        __m256i first[NV], second[NV];
        unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA { first[v] = load(w + v * 32), second[v] = load(w + (NV + v) * 32); });
        unroll<R>([&](auto r) SONIQ_INLINE_LAMBDA {
          const __m256i x01 = broadcast4(row[r] + i * 8), x23 = broadcast4(row[r] + i * 8 + 4);
          unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA {
            const __m256i products = _mm256_madd_epi16(_mm256_add_epi16(x01, first[v]), _mm256_add_epi16(x23, second[v]));
            sum[r][v] = _mm256_add_epi32(sum[r][v], products);
          });
          SONIQ_ROW_BARRIER();
        });
      }
    }
    unroll<R * NV>([&](auto i) SONIQ_INLINE_LAMBDA { store(out + i / NV * ld_out + i % NV * 8, sum[i / NV][i % NV]); });
  }

  // 32 codes to u16; what they add to xi.
  static SONIQ_INLINE __m256i widen(const uint8_t* codes, uint8_t* out) {
    __m256i words[2];
    for (int h = 0; h < 2; h++) {
      words[h] = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes) + h));
      store(out + h * 32, words[h]);
    }
    const __m256 a = _mm256_castsi256_ps(words[0]), b = _mm256_castsi256_ps(words[1]);
    const __m256 first = _mm256_shuffle_ps(a, b, 0x88), second = _mm256_shuffle_ps(a, b, 0xdd);
    return _mm256_madd_epi16(_mm256_castps_si256(first), _mm256_castps_si256(second));
  }

  static SONIQ_INLINE int32_t total(__m256i sums) {
    const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    const __m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 1)));
  }
};

}  // namespace
}  // namespace soniq

SONIQ_KERNEL(gemm_u8_s8_s32_4x16x4__avx2_fip, "avx2", 4, 66308, soniq::InnerProduct<4, 2>)
