// W8A8 for one row, by byte products of magnitudes (AVX2 vpmaddubsw, without its saturation).
//
// Equation. Of an activation s = u - 128 the magnitude m = |s| <= 128 is an unsigned byte, and its sign a mask g of zeros or
//   ones. A weight xor g is w or -w - 1, so that
//     sum w u = sum m (w xor g) + sum_{s < 0} m + 128 sum w.
//   The second sum is made by pack_a, the third by pack_w.
// Exactness. Two products lie in -2 * 128 * 128 .. 2 * 128 * 127, just within int16 (u8 times s8 would saturate there); vpmaddwd
//   by ones takes them to int32. |raw| <= 127 * 255 K: k_max = floor((2^31 - 1) / (127 * 255)), rounded down to whole groups; no
//   partial sum is larger.
// Packing. Activations: [k / 4][2][4] bytes, four magnitudes and four masks; k padded to 32, then
//   sum_{s < 0} m (int32). Weights: panel = 128 sum w
//   (int32) [nr], then [tap][k / 4][nr][4] s8, a vector is 4 k of 8 channels. What pads k is 0 on both sides.
// Ports. Per 32 MAC one vpxor, vpmaddubsw, vpmaddwd and vpaddd: 32 MAC/cycle where four vector operations start a cycle, more than
//   caches deliver of weights; hence one row only (blocks of rows: gemm_fip). Tile 1 x 8 vectors: 8 sums, 2 activations, ones.
#include "avx2.h"

namespace soniq {
namespace {

template <int NV>
struct MagnitudeRow {
  static constexpr int mr = 1, nr = 8 * NV, k_group = 4, head_bytes = 4 * nr;

  static int64_t groups(int64_t k) { return ceil_div(k, k_group); }
  static int64_t tail(int64_t k) { return ceil_div(k, 32) * 64; }
  static int64_t a_row_bytes(int64_t k) { return tail(k) + 4; }
  static int64_t panel_bytes(int64_t taps, int64_t k) { return head_bytes + taps * groups(k) * 4 * nr; }
  static int64_t w_bytes(int64_t cols, int64_t taps, int64_t k) { return ceil_div(cols, nr) * panel_bytes(taps, k); }

  static void pack_a(int64_t rows, int64_t k, const void* codes, int64_t ld_codes, uint8_t* out, int64_t ld_out) {
    for (int64_t r = 0; r < rows; r++) {
      const uint8_t* src = static_cast<const uint8_t*>(codes) + r * ld_codes;
      uint8_t* dst = out + r * ld_out;
      __m256i negative = _mm256_setzero_si256();
      for (int64_t i = 0; i < k; i += 32) negative = _mm256_add_epi64(negative, pack_32(src + i, k - i, dst + i * 2));
      const __m128i halves = _mm_add_epi64(_mm256_castsi256_si128(negative), _mm256_extracti128_si256(negative, 1));
      const int32_t sum = _mm_cvtsi128_si32(_mm_add_epi64(halves, _mm_unpackhi_epi64(halves, halves)));
      __builtin_memcpy(dst + tail(k), &sum, 4);
    }
  }

  static void pack_w(int64_t cols, int64_t taps, int64_t k, const int8_t* w, uint8_t* out) {
    for (int64_t n0 = 0; n0 < cols; n0 += nr) {
      int32_t* head = reinterpret_cast<int32_t*>(out);
      for (int n = 0; n < nr; n++) head[n] = 0;
      out += head_bytes;
      for (int64_t t = 0; t < taps; t++)
        for (int64_t i = 0; i < k; i += k_group)
          for (int slot = 0; slot < 4 * nr; slot++) {
            const int64_t n = n0 + slot / 4, at = i + slot % 4;
            const int8_t weight = n < cols && at < k ? w[(n * taps + t) * k + at] : int8_t{0};
            head[slot / 4] += 128 * weight;
            *out++ = static_cast<uint8_t>(weight);
          }
    }
  }

  static void run(int64_t rows, int64_t cols, int64_t taps, int64_t k, const uint8_t* const* a, int64_t ld_a, const uint8_t* w,
                  void* acc, int64_t ld_acc) {
    int32_t* out = static_cast<int32_t*>(acc);
    for (int64_t n = 0; n < cols; n += nr, w += panel_bytes(taps, k))
      for (int64_t r = 0; r < rows; r++) tile(taps, k, a + r, ld_a, w, out + r * ld_acc + n);
  }

 private:
  // Up to 32 codes, the others as 128; what they add to the sum over negative ones, in four parts.
  static SONIQ_INLINE __m256i pack_32(const uint8_t* codes, int64_t live, uint8_t* out) {
    const __m256i zero = _mm256_setzero_si256(), middle = _mm256_set1_epi8(-128);
    const __m256i s = _mm256_xor_si256(load_codes(codes, live, 128), middle);
    const __m256i magnitude = _mm256_abs_epi8(s), mask = _mm256_cmpgt_epi8(zero, s);
    const __m256i low = _mm256_unpacklo_epi32(magnitude, mask), high = _mm256_unpackhi_epi32(magnitude, mask);
    store(out, _mm256_permute2x128_si256(low, high, 0x20));
    store(out + 32, _mm256_permute2x128_si256(low, high, 0x31));
    return _mm256_sad_epu8(_mm256_and_si256(magnitude, mask), zero);
  }

  static void tile(int64_t taps, int64_t k, const uint8_t* const* a, int64_t ld_a, const uint8_t* w, int32_t* out) {
    const __m256i ones = _mm256_set1_epi16(1);
    const int64_t end = groups(k);
    Ints sum[NV];
    unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA { sum[v] = (Ints)load(w + v * 32); });
    w += head_bytes;
    for (int64_t t = 0; t < taps; t++, a += ld_a) {
      const Ints negative = (Ints)broadcast4(*a + tail(k));
      unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA { sum[v] += negative; });
#pragma GCC unroll 1
      for (int64_t i = 0; i < end; i++, w += 4 * nr) {
        prefetch_stream<4 * nr>(w);
        const __m256i magnitude = broadcast4(*a + i * 8), mask = broadcast4(*a + i * 8 + 4);
        unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA {
          const __m256i pairs = _mm256_maddubs_epi16(magnitude, _mm256_xor_si256(mask, load(w + v * 32)));
          sum[v] += (Ints)_mm256_madd_epi16(pairs, ones);
        });
      }
    }
    unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA { store(out + v * 8, (__m256i)sum[v]); });
  }
};

}  // namespace
}  // namespace soniq

SONIQ_KERNEL(gemm_u8_s8_s32_1x64x4__avx2_magnitude, "avx2", 4, 66308, soniq::MagnitudeRow<8>)
