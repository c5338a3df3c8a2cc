// Weights of 1, 2, 4 or 8 bits on unsigned activation bytes by dot products of four (AVX512_VNNI vpdpbusd).
//
// Equation. raw = sum w u, four products of an unsigned byte and a signed byte per 32-bit lane and instruction, without
//   saturation. Zero-free weights are stored as codes u_w of their true width and become w = 2 u_w - c_w by one vpermb per 64
//   of them: the table repeats every 2^bits entries, so that whatever lies above the field in a byte is ignored and no mask
//   is needed.
// Exactness. |raw| <= c_a c_w K (8-bit weights: c_w = 127) must fit int32; k_max is the largest such K, rounded down to
//   whole groups.
// Packing. Activations: the codes themselves, rows padded with 0 to the k-group of G = 32 / weight_bits. Weights: panel =
//   [tap][k / G][nr / 16][64] bytes: byte b of a vector belongs to channel b / 4, its field j (bits j * weight_bits) to
//   element 4 j + b % 4 of the group.
// Tile. A chunk of the panel that fits L1 is unpacked to bytes once and met by all row blocks; accumulators wait in acc
//   between chunks. 8-bit weights need neither: their panel streams from L2, 256 bytes for 24 products. The one-row kernel
//   unpacks in registers what it streams.
// Ports. 64 MAC an instruction: 64 MAC/cycle where one vpdpbusd starts a cycle (Zen 4), 128 where two do (Intel server, p0
//   and p5). Latency 4-5 cycles: 10 accumulators hide it, the tile 6 x 4 vectors has 24, with 4 weights, an activation
//   broadcast (a load) and 3 spare. 10 loads for 24 products. Unpacking takes 2 - weight_bits / 8 operations and a store per
//   64 weights, once for all rows. One row: 3 - weight_bits / 8 operations per 64 weights (8 bits: 1); bound by the cache
//   level the weights come from.
#include <string.h>

#include "avx512.h"

namespace soniq {
namespace {

// Weights of WB bits, four to a 32-bit lane, `fields` such groups to a byte vector.
template <int WB>
struct Weights {
  static constexpr int fields = 8 / WB;
  static constexpr int64_t group = 4 * fields;

  static int64_t groups(int64_t k) { return ceil_div(k, group); }

  static int8_t pack(const int8_t* w, int64_t first, int64_t k) {
    if constexpr (WB == 8) return first < k ? w[first] : 0;
    int byte = 0;
    for (int j = 0; j < fields; j++)
      if (first + 4 * j < k) byte |= (w[first + 4 * j] + (1 << WB) - 1) / 2 << (j * WB);
    return static_cast<int8_t>(byte);
  }

  // 64 integers w from field j of 64 packed bytes.
  template <int J>
  static SONIQ_INLINE __m512i unpack(Index<J>, __m512i packed, __m512i integers) {
    if constexpr (WB == 8) return packed;
    return _mm512_permutexvar_epi8(J ? _mm512_srli_epi16(packed, J * WB) : packed, integers);
  }

  static SONIQ_INLINE __m512i integers() {
    alignas(64) int8_t table[64];
    for (int x = 0; x < 64; x++) table[x] = static_cast<int8_t>(2 * (x & ((1 << WB) - 1)) - ((1 << WB) - 1));
    return _mm512_load_si512(table);
  }
};

template <int NV, int WB>
struct Operands {
  static constexpr int nr = 16 * NV;

  static int64_t a_row_bytes(int64_t k) { return Weights<WB>::groups(k) * Weights<WB>::group; }
  static int64_t w_bytes(int64_t cols, int64_t taps, int64_t k) {
    return ceil_div(cols, nr) * taps * Weights<WB>::groups(k) * NV * 64;
  }

  static void pack_a(int64_t rows, int64_t k, const void* codes, int64_t ld_codes, uint8_t* out, int64_t ld_out) {
    const uint8_t* from = static_cast<const uint8_t*>(codes);
    switch (a_row_bytes(k)) {  // pixels of few channels: lengths that are known take no call
      case 4: return pack_short<4>(rows, k, from, ld_codes, out, ld_out);
      case 8: return pack_short<8>(rows, k, from, ld_codes, out, ld_out);
      case 16: return pack_short<16>(rows, k, from, ld_codes, out, ld_out);
    }
    for (int64_t r = 0; r < rows; r++, out += ld_out, from += ld_codes) {
      memcpy(out, from, static_cast<size_t>(k));
      memset(out + k, 0, static_cast<size_t>(a_row_bytes(k) - k));
    }
  }

  template <int Padded>
  static void pack_short(int64_t rows, int64_t k, const uint8_t* codes, int64_t ld_codes, uint8_t* out, int64_t ld_out) {
    for (int64_t r = 0; r < rows; r++) {
      const __m512i row = _mm512_maskz_loadu_epi8((1ull << k) - 1, codes + r * ld_codes);
      memcpy(out + r * ld_out, &row, Padded);
    }
  }

  static void pack_w(int64_t cols, int64_t taps, int64_t k, const int8_t* w, uint8_t* out) {
    for (int64_t n0 = 0; n0 < cols; n0 += nr)
      for (int64_t t = 0; t < taps; t++)
        for (int64_t i = 0; i < k; i += Weights<WB>::group)
          for (int byte = 0; byte < NV * 64; byte++) {
            const int64_t n = n0 + byte / 4;
            *out++ = n < cols ? static_cast<uint8_t>(Weights<WB>::pack(w + (n * taps + t) * k, i + byte % 4, k)) : 0;
          }
  }
};

SONIQ_INLINE __m512i broadcast4(const uint8_t* codes) {
  int32_t four;
  memcpy(&four, codes, 4);
  return _mm512_set1_epi32(four);
}

SONIQ_INLINE void multiply_add(Ints& acc, __m512i codes, __m512i weights) {
  acc = (Ints)_mm512_dpbusd_epi32((__m512i)acc, codes, weights);
}

template <int MR, int NV, int WB>
struct Dot : Operands<NV, WB> {
  using W = Weights<WB>;
  static constexpr int mr = MR, nr = 16 * NV;
  static constexpr int64_t chunk_bytes = WB == 8 ? 1 << 30 : 24 << 10;
  static constexpr int64_t chunk_groups = chunk_bytes / (W::fields * NV * 64);

  static void run(int64_t rows, int64_t cols, int64_t taps, int64_t k, const uint8_t* const* a, int64_t ld_a, const uint8_t* w,
                  void* acc, int64_t ld_acc) {
    for (int64_t n = 0; n < cols; n += nr)
      for_chunks(taps, W::groups(k), chunk_groups, [&](int64_t t, int64_t n_taps, int64_t g, int64_t n_groups) {
        int32_t* out = static_cast<int32_t*>(acc) + n;
        chunk(rows, n_taps, n_groups, a + t * ld_a, ld_a, g * W::group, w, out, ld_acc, t + g == 0);
        w += n_taps * n_groups * NV * 64;
      });
  }

 private:
  static void chunk(int64_t rows, int64_t taps, int64_t groups, const uint8_t* const* a, int64_t ld_a, int64_t offset,
                    const uint8_t* w, int32_t* out, int64_t ld_out, bool first) {
    alignas(64) uint8_t unpacked[WB == 8 ? 64 : chunk_groups * W::fields * NV * 64];
    if constexpr (WB < 8) {
      unpack(taps * groups, w, unpacked);
      w = unpacked;
    }
    for_row_blocks<MR>(rows, [&](auto block, int64_t r) {
      tile(block, taps, groups * W::fields, a + r, ld_a, offset, w, out + r * ld_out, ld_out, first);
    });
  }

  static void unpack(int64_t groups, const uint8_t* w, uint8_t* out) {
    const __m512i integers = W::integers();
    for (int64_t g = 0; g < groups; g++, w += NV * 64, out += W::fields * NV * 64)
      unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA {
        const __m512i packed = _mm512_load_si512(w + v * 64);
        unroll<W::fields>([&](auto j) SONIQ_INLINE_LAMBDA {
          _mm512_store_si512(out + (j * NV + v) * 64, W::unpack(j, packed, integers));
        });
      });
  }

  // fours: how many groups of four elements of each tap.
  template <int R>
  static void tile(Index<R>, int64_t taps, int64_t fours, const uint8_t* const* a, int64_t ld_a, int64_t offset,
                   const uint8_t* w, int32_t* out, int64_t ld_out, bool first) {
    Ints acc[R][NV];
    __m512i weight[NV];
    const uint8_t* row[R];
    unroll<R * NV>([&](auto i) SONIQ_INLINE_LAMBDA {
      const int32_t* waiting = out + i / NV * ld_out + i % NV * 16;
      acc[i / NV][i % NV] = first ? Ints{} : (Ints)_mm512_loadu_si512(waiting);
    });
    for (int64_t t = 0; t < taps; t++, a += ld_a) {
      unroll<R>([&](auto r) SONIQ_INLINE_LAMBDA { row[r] = a[r] + offset; });
#pragma GCC unroll 1
      for (int64_t i = 0; i < fours; i++, w += NV * 64) {
        unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA { weight[v] = _mm512_load_si512(w + v * 64); });
        unroll<R>([&](auto r) SONIQ_INLINE_LAMBDA {
          const __m512i codes = broadcast4(row[r] + i * 4);
          unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA { multiply_add(acc[r][v], codes, weight[v]); });
          SONIQ_ROW_BARRIER();
        });
      }
    }
    unroll<R * NV>([&](auto i) SONIQ_INLINE_LAMBDA {
      _mm512_storeu_si512(out + i / NV * ld_out + i % NV * 16, (__m512i)acc[i / NV][i % NV]);
    });
  }
};

template <int NV, int WB>
struct DotRow : Operands<NV, WB> {
  using W = Weights<WB>;
  static constexpr int mr = 1, nr = 16 * NV;

  static void run(int64_t rows, int64_t cols, int64_t taps, int64_t k, const uint8_t* const* a, int64_t ld_a, const uint8_t* w,
                  void* acc, int64_t ld_acc) {
    for (int64_t n = 0; n < cols; n += nr, w += taps * W::groups(k) * NV * 64)
      for (int64_t r = 0; r < rows; r++) row(taps, W::groups(k), a + r, ld_a, w, static_cast<int32_t*>(acc) + r * ld_acc + n);
  }

 private:
  static void row(int64_t taps, int64_t groups, const uint8_t* const* a, int64_t ld_a, const uint8_t* w, int32_t* out) {
    const __m512i integers = W::integers();
    Ints acc[NV];
    unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA { acc[v] = Ints{}; });
    for (int64_t t = 0; t < taps; t++, a += ld_a)
#pragma GCC unroll 1
      for (int64_t g = 0; g < groups; g++, w += NV * 64) {
        __m512i codes[W::fields];
        unroll<W::fields>([&](auto j) SONIQ_INLINE_LAMBDA { codes[j] = broadcast4(*a + g * W::group + j * 4); });
        prefetch_stream<NV>(w);
        unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA {
          const __m512i packed = _mm512_load_si512(w + v * 64);
          unroll<W::fields>([&](auto j) SONIQ_INLINE_LAMBDA {
            multiply_add(acc[v], codes[j], W::unpack(j, packed, integers));
          });
        });
      }
    unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA { _mm512_storeu_si512(out + v * 16, (__m512i)acc[v]); });
  }
};

}  // namespace
}  // namespace soniq

SONIQ_KERNEL(gemm_u8_s8_s32_6x64x4__avx512vnni_dot, "avx512f,avx512bw,avx512vnni", 4, 66308, soniq::Dot<6, 4, 8>)
SONIQ_KERNEL(gemm_u8_s8_s32_12x32x4__avx512vnni_dot, "avx512f,avx512bw,avx512vnni", 4, 66308, soniq::Dot<12, 2, 8>)
SONIQ_KERNEL(gemm_u8_s8_s32_12x16x4__avx512vnni_dot, "avx512f,avx512bw,avx512vnni", 4, 66308, soniq::Dot<12, 1, 8>)
SONIQ_KERNEL(gemm_u8_s8_s32_1x128x4__avx512vnni_dot, "avx512f,avx512bw,avx512vnni", 4, 66308, soniq::DotRow<8, 8>)
#ifdef __AVX512VBMI__  // a build for the instances above has only their features
SONIQ_KERNEL(gemm_u8_z4_s32_6x64x8__avx512vnni_dot, "avx512f,avx512bw,avx512vnni,avx512vbmi", 8, 561432, soniq::Dot<6, 4, 4>)
SONIQ_KERNEL(gemm_u8_z4_s32_12x32x8__avx512vnni_dot, "avx512f,avx512bw,avx512vnni,avx512vbmi", 8, 561432, soniq::Dot<12, 2, 4>)
SONIQ_KERNEL(gemm_u8_z4_s32_1x128x8__avx512vnni_dot, "avx512f,avx512bw,avx512vnni,avx512vbmi", 8, 561432, soniq::DotRow<8, 4>)
SONIQ_KERNEL(gemm_u4_z4_s32_6x64x8__avx512vnni_dot, "avx512f,avx512bw,avx512vnni,avx512vbmi", 8, 9544368, soniq::Dot<6, 4, 4>)
SONIQ_KERNEL(gemm_u4_z4_s32_12x32x8__avx512vnni_dot, "avx512f,avx512bw,avx512vnni,avx512vbmi", 8, 9544368, soniq::Dot<12, 2, 4>)
SONIQ_KERNEL(gemm_u4_z4_s32_1x128x8__avx512vnni_dot, "avx512f,avx512bw,avx512vnni,avx512vbmi", 8, 9544368, soniq::DotRow<8, 4>)
SONIQ_KERNEL(gemm_u8_z2_s32_6x64x16__avx512vnni_dot, "avx512f,avx512bw,avx512vnni,avx512vbmi", 16, 2807168, soniq::Dot<6, 4, 2>)
SONIQ_KERNEL(gemm_u8_z2_s32_1x64x16__avx512vnni_dot, "avx512f,avx512bw,avx512vnni,avx512vbmi", 16, 2807168, soniq::DotRow<4, 2>)
SONIQ_KERNEL(gemm_u4_z2_s32_6x64x16__avx512vnni_dot, "avx512f,avx512bw,avx512vnni,avx512vbmi", 16, 47721856, soniq::Dot<6, 4, 2>)
SONIQ_KERNEL(gemm_u4_z2_s32_1x64x16__avx512vnni_dot, "avx512f,avx512bw,avx512vnni,avx512vbmi", 16, 47721856, soniq::DotRow<4, 2>)
SONIQ_KERNEL(gemm_u8_z1_s32_6x64x32__avx512vnni_dot, "avx512f,avx512bw,avx512vnni,avx512vbmi", 32, 8421504, soniq::Dot<6, 4, 1>)
SONIQ_KERNEL(gemm_u8_z1_s32_1x64x32__avx512vnni_dot, "avx512f,avx512bw,avx512vnni,avx512vbmi", 32, 8421504, soniq::DotRow<4, 1>)
SONIQ_KERNEL(gemm_u4_z1_s32_6x64x32__avx512vnni_dot, "avx512f,avx512bw,avx512vnni,avx512vbmi", 32, 143165568, soniq::Dot<6, 4, 1>)
SONIQ_KERNEL(gemm_u4_z1_s32_1x64x32__avx512vnni_dot, "avx512f,avx512bw,avx512vnni,avx512vbmi", 32, 143165568, soniq::DotRow<4, 1>)
#endif
