// fp32 activations with weights of 2, 4 or 8 bits, decoded while they are multiplied (AVX-512 FMA).
//
// Equation. acc = sum w a in fp32, w the integers themselves: odd for zero-free weights (their level is w 2^(1-b), and
//   scales are applied later), or s8. Every output is one chain of fused multiply-adds from 0, taps in order, within a tap k
//   in order, whatever the number of rows.
// Error. With n = taps * padded k and u = 2^-24: |acc - exact| <= n u / (1 - n u) * sum |w| |a| (Higham, Accuracy and
//   Stability of Numerical Algorithms, 2002, section 3.1; one rounding per term). k_max is where n u reaches 1/2. Padding
//   adds 0 exactly.
// Packing. Activations: fp32, rows padded with 0 to the k-group of G = 32 / weight_bits. Weights: panel = [tap][k / G]
//   [nr / 16][64] bytes: a vector is 16 channels by G elements. Below 8 bits a 32-bit lane is a channel and element i is its
//   bits i * weight_bits; at 8 bits the vector is G runs of 16 channels.
// Ports. Decoding 16 weights takes a shift and a vpermps lookup of 16 entries (8 bits: vpmovsxbd and vcvtdq2ps), each use
//   of them one FMA with the activation broadcast from memory. Two 512-bit operations a cycle: 32 MAC/cycle at most; 12 x 2
//   vectors 27.4, one row 10.7. FMA latency 4 cycles: 24 chains in the tile; in the row 4 chains, one step each 6 cycles.
#include <string.h>

#include "avx512.h"

namespace soniq {
namespace {

template <int MR, int NV, int WB>
struct WeightOnly {
  static constexpr int mr = MR, nr = 16 * NV, c_w = (1 << WB) - 1;
  static constexpr int64_t group = 32 / WB;

  static int64_t groups(int64_t k) { return ceil_div(k, group); }
  static int64_t a_row_bytes(int64_t k) { return groups(k) * group * 4; }
  static int64_t w_bytes(int64_t cols, int64_t taps, int64_t k) { return ceil_div(cols, nr) * taps * groups(k) * NV * 64; }

  static void pack_a(int64_t rows, int64_t k, const void* activations, int64_t ld, uint8_t* out, int64_t ld_out) {
    for (int64_t r = 0; r < rows; r++, out += ld_out) {
      memcpy(out, static_cast<const float*>(activations) + r * ld, static_cast<size_t>(k * 4));
      memset(out + k * 4, 0, static_cast<size_t>(a_row_bytes(k) - k * 4));
    }
  }

  static void pack_w(int64_t cols, int64_t taps, int64_t k, const int8_t* w, uint8_t* out) {
    for (int64_t n0 = 0; n0 < cols; n0 += nr)
      for (int64_t t = 0; t < taps; t++)
        for (int64_t i = 0; i < k; i += group)
          for (int v = 0; v < NV; v++, out += 64) {
            memset(out, 0, 64);
            for (int channel = 0; channel < 16; channel++) {
              const int64_t n = n0 + v * 16 + channel;
              if (n < cols) pack_lane(w + (n * taps + t) * k + i, min64(group, k - i), channel, out);
            }
          }
  }

  static void run(int64_t rows, int64_t cols, int64_t taps, int64_t k, const uint8_t* const* a, int64_t ld_a, const uint8_t* w,
                  void* acc, int64_t ld_acc) {
    float* out = static_cast<float*>(acc);
    for (int64_t n = 0; n < cols; n += nr, w += taps * groups(k) * NV * 64)
      for_row_blocks<MR>(rows, [&](auto block, int64_t r) {
        tile(block, taps, groups(k), a + r, ld_a, w, out + r * ld_acc + n, ld_acc);
      });
  }

 private:
  static void pack_lane(const int8_t* w, int64_t live, int channel, uint8_t* out) {
    for (int64_t i = 0; i < live; i++)
      if constexpr (WB == 8) out[i * 16 + channel] = static_cast<uint8_t>(w[i]);
      else out[channel * 4 + i * WB / 8] |= static_cast<uint8_t>((w[i] + c_w) / 2 << i * WB % 8);
  }

  static __m512 levels() {
    alignas(64) float level[16];
    for (int x = 0; x < 16; x++) level[x] = static_cast<float>(2 * (x & c_w) - c_w);
    return _mm512_load_ps(level);
  }

  // Element I of the group for 16 channels. The lookup reads four bits; below four the table repeats.
  template <int I>
  static SONIQ_INLINE __m512 decode(Index<I>, const uint8_t* w, __m512 levels) {
    if constexpr (WB == 8)
      return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(w) + I)));
    const __m512i packed = _mm512_load_si512(w);
    return _mm512_permutexvar_ps(I ? _mm512_srli_epi32(packed, I * WB) : packed, levels);
  }

  template <int R>
  static void tile(Index<R>, int64_t taps, int64_t groups, const uint8_t* const* a, int64_t ld_a, const uint8_t* w, float* out,
                   int64_t ld_out) {
    const __m512 levels = WeightOnly::levels();
    __m512 acc[R][NV], weight[NV];
    const float* row[R];
    unroll<R * NV>([&](auto i) SONIQ_INLINE_LAMBDA { acc[i / NV][i % NV] = _mm512_setzero_ps(); });
    for (int64_t t = 0; t < taps; t++, a += ld_a) {
      unroll<R>([&](auto r) SONIQ_INLINE_LAMBDA { row[r] = reinterpret_cast<const float*>(a[r]); });
#pragma GCC unroll 1
      for (int64_t g = 0; g < groups; g++, w += NV * 64) {
        if constexpr (R == 1) prefetch_stream<NV>(w);
        unroll<group>([&](auto i) SONIQ_INLINE_LAMBDA {
          unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA { weight[v] = decode(i, w + v * 64, levels); });
          unroll<R>([&](auto r) SONIQ_INLINE_LAMBDA {
            const __m512 activation = _mm512_set1_ps(row[r][g * group + i]);
            unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA { acc[r][v] = _mm512_fmadd_ps(weight[v], activation, acc[r][v]); });
            SONIQ_ROW_BARRIER();
          });
        });
      }
    }
    unroll<R * NV>([&](auto i) SONIQ_INLINE_LAMBDA {
      _mm512_storeu_ps(out + i / NV * ld_out + i % NV * 16, acc[i / NV][i % NV]);
    });
  }
};

}  // namespace
}  // namespace soniq

SONIQ_KERNEL(gemm_f32_z4_f32_12x32x8__avx512f_weightonly, "avx512f,avx512bw", 8, 8388608, soniq::WeightOnly<12, 2, 4>)
SONIQ_KERNEL(gemm_f32_z4_f32_1x64x8__avx512f_weightonly, "avx512f,avx512bw", 8, 8388608, soniq::WeightOnly<1, 4, 4>)
SONIQ_KERNEL(gemm_f32_z2_f32_12x32x16__avx512f_weightonly, "avx512f,avx512bw", 16, 8388608, soniq::WeightOnly<12, 2, 2>)
SONIQ_KERNEL(gemm_f32_z2_f32_1x64x16__avx512f_weightonly, "avx512f,avx512bw", 16, 8388608, soniq::WeightOnly<1, 4, 2>)
SONIQ_KERNEL(gemm_f32_s8_f32_12x32x4__avx512f_weightonly, "avx512f,avx512bw", 4, 8388608, soniq::WeightOnly<12, 2, 8>)
SONIQ_KERNEL(gemm_f32_s8_f32_1x64x4__avx512f_weightonly, "avx512f,avx512bw", 4, 8388608, soniq::WeightOnly<1, 4, 8>)
