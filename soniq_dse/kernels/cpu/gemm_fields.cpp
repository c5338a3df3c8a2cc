// W4A4, W4A8 and W2A8 for one row, with weights of their own width (AVX2 vpmaddubsw).
//
// Equation. Weights are codes c, w = 2 c - c_w, so that raw = sum w u = 2 sum c u - c_w sum u; the latter is made by pack_a.
// Exactness. As in gemm_maddubs, since codes are no larger than weights: blocks of 72 (W4A4), 4 (W4A8) and 21 (W2A8) steps of 4 k
//   in 16 bits, then int32 modulo 2^32. k_max = floor((2^31 - 1) / (c_w c_a)), rounded down to whole groups.
// Packing. F = 8 / weight_bits codes share a byte. Activations: the codes, padded with 0 to whole groups of 4 F; then sum u
//   (int32). Weights: panel = [tap][k / 4 F][nr][4] bytes: code j (from bit j * weight_bits) of byte b of a channel is that of
//   element 4 j + b of the group.
// Ports. Per 32 MAC an and, a shift but for the first code, vpmaddubsw and vpaddw: 34 to 37 MAC/cycle where four vector operations
//   start a cycle (W4A8, with vpmaddwd and vpaddd for every 128 MAC: 32). Tile 1 x 4 vectors: 4 sums of 16 and 4 of 32 bits.
#include "avx2.h"

namespace soniq {
namespace {

template <int NV, int WB, int AB>
struct FieldsRow {
  using P = BytePairs<WB, AB>;
  static constexpr int mr = 1, nr = 8 * NV, fields = 8 / WB, k_group = 4 * fields, group_bytes = 4 * nr;
  static constexpr int block_groups = P::block_steps / fields;

  static int64_t groups(int64_t k) { return ceil_div(k, k_group); }
  static int64_t a_row_bytes(int64_t k) { return groups(k) * k_group + 4; }
  static int64_t w_bytes(int64_t cols, int64_t taps, int64_t k) { return ceil_div(cols, nr) * taps * groups(k) * group_bytes; }

  static void pack_a(int64_t rows, int64_t k, const void* codes, int64_t ld_codes, uint8_t* out, int64_t ld_out) {
    const int64_t padded = groups(k) * k_group;
    for (int64_t r = 0; r < rows; r++) {
      const uint8_t* src = static_cast<const uint8_t*>(codes) + r * ld_codes;
      uint8_t* dst = out + r * ld_out;
      __builtin_memcpy(dst, src, k);
      __builtin_memset(dst + k, 0, padded - k);
      int32_t sum = 0;
      for (int64_t i = 0; i < k; i++) sum += src[i];
      __builtin_memcpy(dst + padded, &sum, 4);
    }
  }

  static void pack_w(int64_t cols, int64_t taps, int64_t k, const int8_t* w, uint8_t* out) {
    for (int64_t n0 = 0; n0 < cols; n0 += nr)
      for (int64_t t = 0; t < taps; t++)
        for (int64_t i = 0; i < groups(k) * k_group; i += k_group)
          for (int slot = 0; slot < 4 * nr; slot++) {
            const int64_t n = n0 + slot / 4, at = i + slot % 4;
            int byte = 0;
            for (int j = 0; n < cols && j < fields && at + 4 * j < k; j++)
              byte |= (w[(n * taps + t) * k + at + 4 * j] + P::c_w) / 2 << j * WB;
            *out++ = static_cast<uint8_t>(byte);
          }
  }

  static void run(int64_t rows, int64_t cols, int64_t taps, int64_t k, const uint8_t* const* a, int64_t ld_a, const uint8_t* w,
                  void* acc, int64_t ld_acc) {
    int32_t* out = static_cast<int32_t*>(acc);
    for (int64_t n = 0; n < cols; n += nr, w += taps * groups(k) * group_bytes)
      for (int64_t r = 0; r < rows; r++) tile(taps, groups(k), a + r, ld_a, w, out + r * ld_acc + n);
  }

 private:
  static void tile(int64_t taps, int64_t groups, const uint8_t* const* a, int64_t ld_a, const uint8_t* w, int32_t* out) {
    Words words[NV];
    __m256i sum[NV];
    uint32_t codes = 0;
    unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA { sum[v] = _mm256_setzero_si256(); });
    for (int64_t t = 0; t < taps; t++, a += ld_a) {
      codes += row_sum(*a + groups * k_group);
      for (int64_t g = 0, end; g < groups; g = end) {
        end = min64(g + block_groups, groups);
        unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA { words[v] = Words{}; });
#pragma GCC unroll 1
        for (int64_t i = g; i < end; i++, w += group_bytes) group(*a + i * k_group, w, words);
        const __m256i ones = P::ones();
        unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA { sum[v] = _mm256_add_epi32(sum[v], P::widened(words[v], ones)); });
      }
    }
    const __m256i offset = _mm256_set1_epi32(static_cast<int32_t>(codes * P::c_w));
    unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA {
      store(out + v * 8, _mm256_sub_epi32(_mm256_add_epi32(sum[v], sum[v]), offset));
    });
  }

  static SONIQ_INLINE void group(const uint8_t* row, const uint8_t* w, Words (&words)[NV]) {
    const __m256i mask = _mm256_set1_epi8(P::c_w);
    prefetch_stream<group_bytes>(w);
    __m256i x[fields];
    unroll<fields>([&](auto j) SONIQ_INLINE_LAMBDA { x[j] = broadcast4(row + j * 4); });
    unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA {
      const __m256i packed = load(w + v * 32);
      unroll<fields>([&](auto j) SONIQ_INLINE_LAMBDA {
        words[v] += P::products(x[j], _mm256_and_si256(j ? _mm256_srli_epi16(packed, j * WB) : packed, mask));
      });
    });
  }

  static SONIQ_INLINE uint32_t row_sum(const uint8_t* tail) {
    uint32_t sum;
    __builtin_memcpy(&sum, tail, 4);
    return sum;
  }
};

}  // namespace
}  // namespace soniq

SONIQ_KERNEL(gemm_u4_z4_s32_1x32x8__avx2_fields, "avx2", 8, 9544368, soniq::FieldsRow<4, 4, 4>)
SONIQ_KERNEL(gemm_u8_z4_s32_1x32x8__avx2_fields, "avx2", 8, 561432, soniq::FieldsRow<4, 4, 8>)
SONIQ_KERNEL(gemm_u8_z2_s32_1x32x16__avx2_fields, "avx2", 16, 2807168, soniq::FieldsRow<4, 2, 8>)
