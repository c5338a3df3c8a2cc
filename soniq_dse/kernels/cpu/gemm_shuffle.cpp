// W1A1, W1A2, W2A2, W1A4 and W2A4 by 16-entry tables (AVX2 vpshufb): 32 channels a lookup.
//
// Equation, packing and exactness: table16.h. The table stands in both halves of a register.
// Ports. Per step and 32 output channels one vpshufb and one vpaddb, and 3 / FLUSH operations for widening: MAC/cycle at most
//   32 G / (2 + 3 / FLUSH) * 3 where three vector operations start a cycle, two of them shuffles (Intel from Ice Lake):
//   W1A1 188, W1A2 179, W2A2 87, W1A4 140, W2A4 55; four and two (Zen 3, 4): W1A1 250. Zen 3
//   sends additions to the shuffle pipes too and stops at 216; measured 178, W1A2 165, W2A2 83. Blocks of several rows leave W2A4
//   to gemm_maddubs. Tile 6 x 2 vectors: 12 byte accumulators, 2 indices, a table and a temporary = 16 registers; the 16-bit
//   sums live in L1. 8 x 1 vectors for up to 32 channels: 129.
#include "avx2.h"
#include "table16.h"

namespace soniq {
namespace {

struct Avx2 {
  static constexpr int lanes = 32;
  using Bytes = soniq::Bytes;
  using Words = soniq::Words;

  static SONIQ_INLINE Bytes load(const uint8_t* p) { return (Bytes)soniq::load(p); }
  static SONIQ_INLINE Bytes low(Bytes index) { return index & 15; }
  static SONIQ_INLINE Bytes high(Bytes index) { return (Bytes)_mm256_srli_epi16((__m256i)index, 4) & 15; }
  static SONIQ_INLINE Bytes table(const uint8_t* p) {
    return (Bytes)_mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static SONIQ_INLINE Bytes lookup(Bytes table, Bytes index) { return (Bytes)_mm256_shuffle_epi8((__m256i)table, (__m256i)index); }

  // Offsets of 32 codes, one per word (two elements) or double word (four): neighbours are joined by multiplying with powers of two.
  template <int Elements, int AB>
  static SONIQ_INLINE __m256i offsets(__m256i codes) {
    const __m256i pairs = _mm256_maddubs_epi16(codes, _mm256_set1_epi16(1 | 1 << (8 + AB)));
    if constexpr (Elements == 2) return _mm256_slli_epi16(pairs, 4);
    return _mm256_madd_epi16(pairs, _mm256_set1_epi32(16 | 16 << (16 + 2 * AB)));
  }

  template <int Elements, int AB>
  static SONIQ_INLINE void store_offsets(const uint8_t* codes, int64_t live, uint8_t* out) {
    const __m256i wide = offsets<Elements, AB>(load_codes(codes, live));
    const __m128i half[2] = {_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1)};
    __m128i* to = reinterpret_cast<__m128i*>(out);
    if constexpr (Elements == 2 && AB == 4) return store(out, wide);
    if constexpr (Elements == 2) return _mm_storeu_si128(to, _mm_packus_epi16(half[0], half[1]));
    const __m128i words = _mm_packus_epi32(half[0], half[1]);
    if constexpr (AB == 2) return _mm_storeu_si128(to, words);
    _mm_storel_epi64(to, _mm_packus_epi16(words, words));
  }

  // The same for as many codes as give whole vectors of offsets, a narrowing for two: how many.
  template <int Elements, int AB>
  static int64_t store_blocks(const uint8_t* codes, int64_t k, uint8_t* out) {
    constexpr int narrowings = Elements == 4 ? (AB == 1 ? 2 : 1) : (AB == 2 ? 1 : 0), vectors = 1 << narrowings;
    int64_t i = 0;
    for (; i + 32 * vectors <= k; i += 32 * vectors, out += 32) {
      __m256i wide[vectors];
      for (int v = 0; v < vectors; v++) wide[v] = offsets<Elements, AB>(load_codes(codes + i + v * 32, 32));
      if constexpr (narrowings == 0) store(out, wide[0]);
      if constexpr (narrowings == 1)
        store(out, _mm256_permute4x64_epi64(
                       Elements == 4 ? _mm256_packus_epi32(wide[0], wide[1]) : _mm256_packus_epi16(wide[0], wide[1]), 0xd8));
      if constexpr (narrowings == 2) {
        const __m256i bytes = _mm256_packus_epi16(_mm256_packus_epi32(wide[0], wide[1]), _mm256_packus_epi32(wide[2], wide[3]));
        store(out, _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
      }
    }
    return i;
  }

  static SONIQ_INLINE void add_twice(Words sums, int32_t* out, bool first, int32_t bias) {
    const __m128i half[2] = {_mm256_castsi256_si128((__m256i)sums), _mm256_extracti128_si256((__m256i)sums, 1)};
    for (int h = 0; h < 2; h++) {
      const __m256i sum = _mm256_slli_epi32(_mm256_cvtepu16_epi32(half[h]), 1);
      const __m256i base =
          first ? _mm256_set1_epi32(bias) : _mm256_loadu_si256(reinterpret_cast<const __m256i*>(out + h * 8));
      store(out + h * 8, _mm256_add_epi32(base, sum));
    }
  }
};

}  // namespace
}  // namespace soniq

SONIQ_KERNEL(gemm_z1_z1_s32_6x64x4__avx2_shuffle, "avx2", 4, 2147483644, soniq::Table16<soniq::Avx2, 6, 2, soniq::Format<1, 1>>)
SONIQ_KERNEL(gemm_z2_z1_s32_6x64x4__avx2_shuffle, "avx2", 4, 715827880, soniq::Table16<soniq::Avx2, 6, 2, soniq::Format<1, 2>>)
SONIQ_KERNEL(gemm_z2_z2_s32_6x64x2__avx2_shuffle, "avx2", 2, 238609294, soniq::Table16<soniq::Avx2, 6, 2, soniq::Format<2, 2>>)
SONIQ_KERNEL(gemm_z4_z1_s32_6x64x16__avx2_shuffle, "avx2", 16, 143165568, soniq::Table16<soniq::Avx2, 6, 2, soniq::Format<1, 4>>)
SONIQ_KERNEL(gemm_z1_z1_s32_8x32x4__avx2_shuffle, "avx2", 4, 2147483644, soniq::Table16<soniq::Avx2, 8, 1, soniq::Format<1, 1>>)
SONIQ_KERNEL(gemm_z2_z1_s32_8x32x4__avx2_shuffle, "avx2", 4, 715827880, soniq::Table16<soniq::Avx2, 8, 1, soniq::Format<1, 2>>)
SONIQ_KERNEL(gemm_z2_z2_s32_8x32x2__avx2_shuffle, "avx2", 2, 238609294, soniq::Table16<soniq::Avx2, 8, 1, soniq::Format<2, 2>>)
SONIQ_KERNEL(gemm_z1_z1_s32_1x128x8__avx2_shuffle, "avx2", 8, 2147483640, soniq::Table16<soniq::Avx2, 1, 4, soniq::Format<1, 1>, true>)
SONIQ_KERNEL(gemm_z2_z1_s32_1x128x8__avx2_shuffle, "avx2", 8, 715827880, soniq::Table16<soniq::Avx2, 1, 4, soniq::Format<1, 2>, true>)
SONIQ_KERNEL(gemm_z2_z2_s32_1x128x4__avx2_shuffle, "avx2", 4, 238609292, soniq::Table16<soniq::Avx2, 1, 4, soniq::Format<2, 2>, true>)
SONIQ_KERNEL(gemm_z4_z1_s32_1x128x16__avx2_shuffle, "avx2", 16, 143165568, soniq::Table16<soniq::Avx2, 1, 4, soniq::Format<1, 4>, true>)
SONIQ_KERNEL(gemm_z4_z2_s32_1x128x4__avx2_shuffle, "avx2", 4, 47721856, soniq::Table16<soniq::Avx2, 1, 4, soniq::Format<2, 4>, true>)
