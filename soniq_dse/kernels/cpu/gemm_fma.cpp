// fp32 activations with weights of 2, 4 or 8 bits, decoded while they are multiplied (AVX2, FMA).
//
// Equation. acc = sum w a in fp32, w the integers themselves: odd for zero-free weights (their level is w 2^(1-b), and
//   scales are applied later), or s8. Every output is one chain of fused multiply-adds from 0, taps in order, within a tap k
//   in order, whatever the number of rows: the results of gemm_weightonly bit by bit.
// Error. With n = taps * padded k and u = 2^-24: |acc - exact| <= n u / (1 - n u) * sum |w| |a| (Higham, Accuracy and
//   Stability of Numerical Algorithms, 2002, section 3.1; one rounding per term). k_max is where n u reaches 1/2. Padding
//   adds 0 exactly.
// Packing. Weights: panel = [tap][k / G][nr / 8][32] bytes, G = 32 / weight_bits: a vector is 8 channels by G elements. Below 8
//   bits a 32-bit lane is a channel, and element i is the code at its bits i * weight_bits; at 8 bits the vector is G runs of
//   8 channels. Activations: fp32, rows padded with 0 to whole G; below 8 bits a code c is decoded where it stands, as
//   (c - c_w / 2) 2^p, so that its activation is packed as 2 a 2^-p (exact, but for |a| < 2^-104).
// Ports. Decoding 8 weights takes an and, an or that makes 2^23 + c 2^p of the code, and the subtraction of 2^23 + c_w / 2 2^p;
//   past bit 22 the lane is shifted first, once a group. At 8 bits: vpmovsxbd, vcvtdq2ps. Each use is one FMA. Two FMA a
//   cycle: 16 MAC/cycle at most, with decoding in the shadow of 6 rows; one row, four operations a cycle: 8, at 8 bits 10.7
//   (Zen 3: 13 to 15, and 5.6 and 7.7). vpermps would decode in one instruction, but is two operations on Zen 3. Tile 6 x 2
//   vectors: 12 sums, 2 weights, an activation, a temporary = 16 registers.
#include "avx2.h"

namespace soniq {
namespace {

template <int MR, int NV, int WB>
struct WeightOnly {
  static constexpr int mr = MR, nr = 8 * NV, c_w = (1 << WB) - 1;
  static constexpr int64_t group = 32 / WB, group_bytes = NV * 32;

  static int64_t groups(int64_t k) { return ceil_div(k, group); }
  static int64_t a_row_bytes(int64_t k) { return groups(k) * group * 4; }
  static int64_t w_bytes(int64_t cols, int64_t taps, int64_t k) { return ceil_div(cols, nr) * taps * groups(k) * group_bytes; }

  static void pack_a(int64_t rows, int64_t k, const void* activations, int64_t ld, uint8_t* out, int64_t ld_out) {
    for (int64_t r = 0; r < rows; r++) {
      const float* src = static_cast<const float*>(activations) + r * ld;
      float* dst = reinterpret_cast<float*>(out + r * ld_out);
      int64_t i = 0;
      for (; i + group <= k; i += group) scale_group(src + i, dst + i);
      if (i == k) continue;
      float rest[group] = {};
      for (int64_t j = i; j < k; j++) rest[j - i] = src[j];
      scale_group(rest, dst + i);
    }
  }

  static void pack_w(int64_t cols, int64_t taps, int64_t k, const int8_t* w, uint8_t* out) {
    __builtin_memset(out, 0, w_bytes(cols, taps, k));
    for (int64_t n0 = 0; n0 < cols; n0 += nr)
      for (int64_t t = 0; t < taps; t++)
        for (int64_t i = 0; i < k; i += group, out += group_bytes)
          for (int64_t n = n0; n < min64(n0 + nr, cols); n++)
            pack_lane(w + (n * taps + t) * k + i, min64(group, k - i), n % 8, out + (n - n0) / 8 * 32);
  }

  static void run(int64_t rows, int64_t cols, int64_t taps, int64_t k, const uint8_t* const* a, int64_t ld_a, const uint8_t* w,
                  void* acc, int64_t ld_acc) {
    float* out = static_cast<float*>(acc);
    for (int64_t n = 0; n < cols; n += nr, w += taps * groups(k) * group_bytes)
      for_row_blocks<MR>(rows, [&](auto block, int64_t r) {
        tile(block, taps, groups(k), a + r, ld_a, w, out + r * ld_acc + n, ld_acc);
      });
  }

 private:
  static void pack_lane(const int8_t* w, int64_t live, int64_t channel, uint8_t* out) {
    for (int64_t i = 0; i < live; i++)
      if constexpr (WB == 8)
        out[i * 8 + channel] = static_cast<uint8_t>(w[i]);
      else
        out[channel * 4 + i * WB / 8] = static_cast<uint8_t>(out[channel * 4 + i * WB / 8] | (w[i] + c_w) / 2 << i * WB % 8);
  }

  // Codes below bit 23 are decoded where they are, those behind after one shift. No code may start at bit 0, where half a unit
  // would be lost: the first is doubled, the others are shifted by one place less.
  static constexpr int in_place = 23 / WB;
  static constexpr int place(int i) { return i == 0 ? 1 : i < in_place ? i * WB : (i - in_place) * WB + 1; }

  struct Scales {
    float of[group];
  };
  static constexpr Scales make_scales() {
    Scales scales{};
    for (int i = 0; i < group; i++) scales.of[i] = WB == 8 ? 1.0f : 2.0f / static_cast<float>(1 << place(i));
    return scales;
  }
  static constexpr Scales scales = make_scales();

  static SONIQ_INLINE void scale_group(const float* src, float* dst) {
    if constexpr (WB == 8) {
      __builtin_memcpy(dst, src, group * 4);
    } else {
      for (int i = 0; i < group; i += 8)
        _mm256_storeu_ps(dst + i, _mm256_mul_ps(_mm256_loadu_ps(src + i), _mm256_loadu_ps(scales.of + i)));
    }
  }

  // Element I of the group for 8 channels.
  template <int I>
  static SONIQ_INLINE __m256 decode(Index<I>, const uint8_t* w) {
    if constexpr (WB == 8)
      return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(w + I * 8))));
    constexpr int base = 0x4b000000;  // 2^23 in fp32: its mantissa counts ones
    __m256i codes = load(w);
    if constexpr (I == 0) codes = _mm256_add_epi32(codes, codes);
    if constexpr (I >= in_place) codes = _mm256_srli_epi32(codes, in_place * WB - 1);
    const __m256i mantissa = _mm256_and_si256(codes, _mm256_set1_epi32(c_w << place(I)));
    const __m256 biased = _mm256_castsi256_ps(_mm256_or_si256(mantissa, _mm256_set1_epi32(base)));
    return _mm256_sub_ps(biased, _mm256_set1_ps(8388608.0f + 0.5f * static_cast<float>(c_w << place(I))));
  }

  template <int R>
  static void tile(Index<R>, int64_t taps, int64_t groups, const uint8_t* const* a, int64_t ld_a, const uint8_t* w, float* out,
                   int64_t ld_out) {
    __m256 acc[R][NV], weight[NV];
    const float* row[R];
    unroll<R * NV>([&](auto i) SONIQ_INLINE_LAMBDA { acc[i / NV][i % NV] = _mm256_setzero_ps(); });
    for (int64_t t = 0; t < taps; t++, a += ld_a) {
      unroll<R>([&](auto r) SONIQ_INLINE_LAMBDA { row[r] = reinterpret_cast<const float*>(a[r]); });
#pragma GCC unroll 1
      for (int64_t g = 0; g < groups; g++, w += group_bytes) {
        if constexpr (R == 1) prefetch_stream<group_bytes>(w);
        unroll<group>([&](auto i) SONIQ_INLINE_LAMBDA {
          unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA { weight[v] = decode(i, w + v * 32); });
          unroll<R>([&](auto r) SONIQ_INLINE_LAMBDA {
            const __m256 activation = _mm256_broadcast_ss(row[r] + g * group + i);
            unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA { acc[r][v] = _mm256_fmadd_ps(weight[v], activation, acc[r][v]); });
            SONIQ_ROW_BARRIER();
          });
        });
      }
    }
    unroll<R * NV>([&](auto i) SONIQ_INLINE_LAMBDA { _mm256_storeu_ps(out + i / NV * ld_out + i % NV * 8, acc[i / NV][i % NV]); });
  }
};

}  // namespace
}  // namespace soniq

SONIQ_KERNEL(gemm_f32_z4_f32_6x16x8__avx2_fma, "avx2,fma", 8, 8388608, soniq::WeightOnly<6, 2, 4>)
SONIQ_KERNEL(gemm_f32_z4_f32_1x32x8__avx2_fma, "avx2,fma", 8, 8388608, soniq::WeightOnly<1, 4, 4>)
SONIQ_KERNEL(gemm_f32_z2_f32_6x16x16__avx2_fma, "avx2,fma", 16, 8388608, soniq::WeightOnly<6, 2, 2>)
SONIQ_KERNEL(gemm_f32_z2_f32_1x32x16__avx2_fma, "avx2,fma", 16, 8388608, soniq::WeightOnly<1, 4, 2>)
SONIQ_KERNEL(gemm_f32_s8_f32_6x16x4__avx2_fma, "avx2,fma", 4, 8388608, soniq::WeightOnly<6, 2, 8>)
SONIQ_KERNEL(gemm_f32_s8_f32_1x32x4__avx2_fma, "avx2,fma", 4, 8388608, soniq::WeightOnly<1, 4, 8>)
