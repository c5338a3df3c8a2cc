// W4A4 by Winograd's inner product (S. Winograd, "A New Algorithm for Inner Product", IEEE Trans. Computers C-17, 1968) on bytes
// (AVX512_VNNI): half the multiplications of a plain sum, for additions that other ports do.
//
// Equation. Over the eight elements 8 i .. 8 i + 7 of a step, weights biased by b = 15 on one side so that it is unsigned,
//   sum_{j < 4} (u_j + (w_{j+4} + b)) (u_{j+4} + w_j) = sum_{e < 8} w_e u_e + sum_j u_{j+4} (u_j + b) + sum_j w_j (w_{j+4} + b),
//   so that raw[r][n] = sum_{t,i} (left side) - sum_t xi[t][r] - eta[n]; xi is made by pack_a, eta by pack_w.
// Exactness. Left factors lie in 0..45 (u8), right ones in -15..30 (s8); sums are taken modulo 2^32, and raw itself fits int32 for
//   K <= k_max = floor((2^31 - 1) / (15 * 15)), rounded down to whole steps.
// Packing. Activations: the codes, k padded to whole steps with 0, then xi (int32). Weights: panel = -eta (int32) [nr], then
//   [tap][step][2][nr][4] s8: the elements 4..7 of a step plus b, which meet the activations 0..3, before its elements 0..3.
// Ports. Per 128 MAC two vpaddb and one vpdpbusd. Zen 4 starts one 512-bit vpdpbusd a cycle, and two operations in all: 1.5 cycles,
//   85 MAC/cycle, where the plain sum has 64. Where two vpdpbusd start a cycle there is nothing to gain. Tile 8
//   x 2 vectors: 16 sums, 4 weights, 2 activations, 2 temporaries = 24 registers; 20 loads for 24 cycles.
#include "avx512.h"

namespace soniq {
namespace {

template <int MR, int NV>
struct HalvedProduct {
  static constexpr int mr = MR, nr = 16 * NV, half = 4, k_group = 2 * half, bias = 15;
  static constexpr int64_t eta_bytes = nr * 4, step_bytes = nr * k_group;

  static int64_t steps(int64_t k) { return ceil_div(k, k_group); }
  static int64_t a_row_bytes(int64_t k) { return steps(k) * k_group + 4; }
  static int64_t panel_bytes(int64_t taps, int64_t k) { return eta_bytes + taps * steps(k) * step_bytes; }
  static int64_t w_bytes(int64_t cols, int64_t taps, int64_t k) { return ceil_div(cols, nr) * panel_bytes(taps, k); }

  static void pack_a(int64_t rows, int64_t k, const void* codes, int64_t ld_codes, uint8_t* out, int64_t ld_out) {
    const __m512i biases = _mm512_set1_epi8(bias);
    for (int64_t r = 0; r < rows; r++) {
      const uint8_t* src = static_cast<const uint8_t*>(codes) + r * ld_codes;
      uint8_t* dst = out + r * ld_out;
      __m512i xi = _mm512_setzero_si512();
      for (int64_t i = 0; i < k; i += 64) {
        const __m512i u = _mm512_maskz_loadu_epi8(first(k - i), src + i);
        _mm512_mask_storeu_epi8(dst + i, first(steps(k) * k_group - i), u);
        xi = _mm512_dpbusd_epi32(xi, _mm512_add_epi8(u, biases), _mm512_srli_epi64(u, 32));
      }
      const int32_t sum = _mm512_reduce_add_epi32(xi);
      __builtin_memcpy(dst + steps(k) * k_group, &sum, 4);
    }
  }

  static void pack_w(int64_t cols, int64_t taps, int64_t k, const int8_t* w, uint8_t* out) {
    for (int64_t n0 = 0; n0 < cols; n0 += nr, out += panel_bytes(taps, k)) {
      int32_t* minus_eta = reinterpret_cast<int32_t*>(out);
      int8_t* bytes = reinterpret_cast<int8_t*>(out + eta_bytes);
      for (int n = 0; n < nr; n++) minus_eta[n] = 0;
      for (int64_t t = 0; t < taps; t++)
        for (int64_t i = 0; i < k; i += k_group, bytes += step_bytes)
          for (int64_t n = 0; n < nr; n++) {
            const auto at = [&](int64_t e) { return n0 + n < cols && i + e < k ? w[((n0 + n) * taps + t) * k + i + e] : -bias; };
            for (int64_t j = 0; j < half; j++) {
              const int lower = at(j), upper = at(j + half) + bias;
              bytes[n * half + j] = static_cast<int8_t>(upper);
              bytes[(nr + n) * half + j] = static_cast<int8_t>(lower);
              minus_eta[n] -= lower * upper;
            }
          }
    }
  }

  static void run(int64_t rows, int64_t cols, int64_t taps, int64_t k, const uint8_t* const* a, int64_t ld_a, const uint8_t* w,
                  void* acc, int64_t ld_acc) {
    int32_t* out = static_cast<int32_t*>(acc);
    for (int64_t n = 0; n < cols; n += nr, w += panel_bytes(taps, k))
      for_row_blocks<MR>(rows, [&](auto block, int64_t r) {
        tile(block, taps, steps(k), a + r, ld_a, w, out + r * ld_acc + n, ld_acc);
      });
  }

 private:
  static SONIQ_INLINE __mmask64 first(int64_t live) { return live >= 64 ? ~0ull : (1ull << live) - 1; }

  template <int R>
  static void tile(Index<R>, int64_t taps, int64_t steps, const uint8_t* const* a, int64_t ld_a, const uint8_t* w, int32_t* out,
                   int64_t ld_out) {
    Ints sum[R][NV];
    const uint8_t* row[R];
    unroll<R>([&](auto r) SONIQ_INLINE_LAMBDA {
      int32_t xi = 0;
      for (int64_t t = 0; t < taps; t++) xi += *reinterpret_cast<const int32_t*>(a[t * ld_a + r] + steps * k_group);
      unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA {
        sum[r][v] = (Ints)_mm512_sub_epi32(_mm512_load_si512(w + v * 64), _mm512_set1_epi32(xi));
      });
    });
    w += eta_bytes;
    for (int64_t t = 0; t < taps; t++, a += ld_a) {
      unroll<R>([&](auto r) SONIQ_INLINE_LAMBDA { row[r] = a[r]; });
#pragma GCC unroll 1
      for (int64_t i = 0; i < steps; i++, w += step_bytes) {
        __m512i upper[NV], lower[NV];
        unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA {
          upper[v] = _mm512_load_si512(w + v * 64), lower[v] = _mm512_load_si512(w + (NV + v) * 64);
        });
        unroll<R>([&](auto r) SONIQ_INLINE_LAMBDA {
          const __m512i x = four(row[r] + i * k_group), y = four(row[r] + i * k_group + half);
          unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA {
            sum[r][v] = (Ints)_mm512_dpbusd_epi32((__m512i)sum[r][v], _mm512_add_epi8(x, upper[v]), _mm512_add_epi8(y, lower[v]));
          });
          SONIQ_ROW_BARRIER();
        });
      }
    }
    unroll<R * NV>([&](auto i) SONIQ_INLINE_LAMBDA {
      _mm512_storeu_si512(out + i / NV * ld_out + i % NV * 16, (__m512i)sum[i / NV][i % NV]);
    });
  }

  // Four codes, in every lane.
  static SONIQ_INLINE __m512i four(const uint8_t* codes) {
    int32_t quad;
    __builtin_memcpy(&quad, codes, 4);
    return _mm512_set1_epi32(quad);
  }
};

}  // namespace
}  // namespace soniq

SONIQ_KERNEL(gemm_u4_z4_s32_8x32x8__avx512vnni_fip, "avx512f,avx512bw,avx512vnni", 8, 9544368, soniq::HalvedProduct<8, 2>)
