// Depthwise convolution, a part of the drivers: its product is too thin for the kernels of the catalog, one code per output and
// tap, so there is nothing to choose or to pack. It has their interface (soniq_kernel.h), and the drivers' vector set.
//
// Equation. raw[r][n] = sum_t w[n][t] * u[t][r][n]: the row behind a pointer holds a code for each channel n.
// Exactness. |raw| <= 127 * 255 * taps; k_max is the largest number of taps for which that fits int32.
// Packing. Activations: plain codes. Weights: panel = [tap pair][4][8 channels][2] s16 (VNNI: [four taps][4][8 channels][4] s8),
//   missing taps at the end zero; of the four groups of 8, group v holds channels 4 v .. 4 v + 3 and 16 more, as unpacking within
//   128-bit lanes leaves them.
// Ports (AVX2). Per two taps, row and 32 channels: the codes of both taps interleaved and widened (six unpacks), four vpmaddwd and
//   four vpaddd: 64 MAC in 14 operations. Tile of 2 rows x 32 channels: 8 sums, 4 weights, 4 temporaries.
// Ports (VNNI). Per four taps, row and 32 channels: their codes interleaved (eight unpacks) and four vpdpbusd: 128 MAC in 12
//   operations, in vectors of 256 bits, of which Zen 4 unpacks two a cycle.
#include "tile.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif
// SONIQ_DEPTHWISE_PAIRS: the weights were packed without VNNI, whatever else the compiler is told.
#if defined(__AVX512VNNI__) && defined(__AVX512VL__) && !defined(SONIQ_DEPTHWISE_PAIRS)
#define SONIQ_DEPTHWISE_VNNI
#endif

namespace soniq {
namespace {

struct Depthwise {
#ifdef SONIQ_DEPTHWISE_VNNI
  using Weight = int8_t;
#else
  using Weight = int16_t;
#endif
  static constexpr int mr = 2, nr = 32, at_once = 4 / sizeof(Weight);  // taps that a product sums
  static constexpr int block_weights = at_once * nr;

  static int64_t panel_weights(int64_t taps) { return ceil_div(taps, at_once) * block_weights; }
  static int64_t a_row_bytes(int64_t k) { return k; }
  static int64_t w_bytes(int64_t cols, int64_t taps, int64_t) { return ceil_div(cols, nr) * panel_weights(taps) * sizeof(Weight); }

  static void pack_a(int64_t rows, int64_t k, const void* codes, int64_t ld_codes, uint8_t* out, int64_t ld_out) {
    for (int64_t r = 0; r < rows; r++) __builtin_memcpy(out + r * ld_out, static_cast<const uint8_t*>(codes) + r * ld_codes, k);
  }

  // w[cols][taps]: k is 1.
  static void pack_w(int64_t cols, int64_t taps, int64_t, const int8_t* w, uint8_t* out) {
    Weight* to = reinterpret_cast<Weight*>(out);
    for (int64_t n0 = 0; n0 < cols; n0 += nr)
      for (int64_t t = 0; t < taps; t += at_once)
        for (int64_t slot = 0; slot < block_weights; slot++) {
          const int64_t n = n0 + channel(slot / at_once), tap = t + slot % at_once;
          *to++ = n < cols && tap < taps ? w[n * taps + tap] : 0;
        }
  }

  static void run(int64_t rows, int64_t cols, int64_t taps, int64_t, const uint8_t* const* a, int64_t ld_a, const uint8_t* w,
                  void* acc, int64_t ld_acc) {
    int32_t* out = static_cast<int32_t*>(acc);
    const Weight* panel = reinterpret_cast<const Weight*>(w);
    for (int64_t n = 0; n < cols; n += nr, panel += panel_weights(taps))
      for_row_blocks<mr>(rows, [&](auto block, int64_t r) { tile(block, taps, n, a + r, ld_a, panel, out + r * ld_acc + n, ld_acc); });
  }

 private:
  // Of the panel, at a place of its weights.
  static constexpr int channel(int64_t place) { return place / 8 * 4 + place % 8 / 4 * 16 + place % 4; }

#if defined(__AVX2__)
  typedef int32_t Ints __attribute__((vector_size(32)));

  template <int R>
  static void tile(Index<R>, int64_t taps, int64_t n, const uint8_t* const* a, int64_t ld_a, const Weight* w, int32_t* out,
                   int64_t ld_out) {
    Ints sum[R][4];
    unroll<4 * R>([&](auto i) SONIQ_INLINE_LAMBDA { sum[i / 4][i % 4] = Ints{}; });
    for (int64_t t = 0; t < taps; t += at_once, a += at_once * ld_a, w += block_weights) {
      const uint8_t* const* tap[at_once];  // those that are missing meet zeros
      unroll<at_once>([&](auto j) SONIQ_INLINE_LAMBDA { tap[j] = t + j < taps ? a + j * ld_a : a; });
      __m256i weight[4];
      unroll<4>([&](auto v) SONIQ_INLINE_LAMBDA { weight[v] = _mm256_load_si256(reinterpret_cast<const __m256i*>(w) + v); });
      unroll<R>([&](auto r) SONIQ_INLINE_LAMBDA {
        __m256i code[at_once];
        unroll<at_once>([&](auto j) SONIQ_INLINE_LAMBDA { code[j] = codes(tap[j][r] + n); });
        unroll<2>([&](auto half) SONIQ_INLINE_LAMBDA { add_half<half>(code, weight, sum[r]); });
        SONIQ_ROW_BARRIER();
      });
    }
    unroll<4 * R>([&](auto i) SONIQ_INLINE_LAMBDA {
      __m128i* to = reinterpret_cast<__m128i*>(out + i / 4 * ld_out) + i % 4;
      _mm_storeu_si128(to, _mm256_castsi256_si128((__m256i)sum[i / 4][i % 4]));
      _mm_storeu_si128(to + 4, _mm256_extracti128_si256((__m256i)sum[i / 4][i % 4], 1));
    });
  }

  // The products of the lower or the upper halves of all 128-bit lanes: two groups of 8 channels.
  template <int Half>
  static SONIQ_INLINE void add_half(const __m256i (&code)[at_once], const __m256i (&weight)[4], Ints (&sum)[4]) {
    constexpr int first = 2 * Half, second = first + 1;
    const __m256i pairs = interleaved<Half>(code[0], code[1]);
#ifdef SONIQ_DEPTHWISE_VNNI
    const __m256i more = interleaved<Half>(code[2], code[3]);
    sum[first] = (Ints)_mm256_dpbusd_epi32((__m256i)sum[first], _mm256_unpacklo_epi16(pairs, more), weight[first]);
    sum[second] = (Ints)_mm256_dpbusd_epi32((__m256i)sum[second], _mm256_unpackhi_epi16(pairs, more), weight[second]);
#else
    const __m256i zero = _mm256_setzero_si256();
    sum[first] += (Ints)_mm256_madd_epi16(_mm256_unpacklo_epi8(pairs, zero), weight[first]);
    sum[second] += (Ints)_mm256_madd_epi16(_mm256_unpackhi_epi8(pairs, zero), weight[second]);
#endif
  }

  template <int Half>
  static SONIQ_INLINE __m256i interleaved(__m256i a, __m256i b) {
    return Half ? _mm256_unpackhi_epi8(a, b) : _mm256_unpacklo_epi8(a, b);
  }

  static SONIQ_INLINE __m256i codes(const uint8_t* row) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row)); }
#else
  template <int R>
  static void tile(Index<R>, int64_t taps, int64_t n, const uint8_t* const* a, int64_t ld_a, const Weight* w, int32_t* out,
                   int64_t ld_out) {
    for (int r = 0; r < R; r++) {
      int32_t sum[nr] = {};
      for (int64_t t = 0; t < taps; t++)
        for (int place = 0; place < nr; place++)
          sum[place] += w[t / at_once * block_weights + at_once * place + t % at_once] * a[t * ld_a + r][n + channel(place)];
      for (int place = 0; place < nr; place++) out[r * ld_out + channel(place)] = sum[place];
    }
  }
#endif
};

}  // namespace
}  // namespace soniq

// Not a kernel of the catalog, which reads the other macro's lines.
SONIQ_INSTANCE(soniq_depthwise, "", 1, 66310, soniq::Depthwise)
