// W1A4 and W2A4 by 16-entry tables in a register and dot products with them (AVX512_VBMI vpermb, AVX512_VNNI vpdpbusd).
//
// Equation. The E = 4 / weight_bits elements whose weight codes fill 4 bits make a part. For their activations a table of 16
//   bytes holds, for every possible weight index x,
//     T[x] = sum_e (z_w(x, e) z_a(e) + c_w c_a) / 2   in 0..M,  M = E c_w c_a,
//   an integer since all z are odd. A step is four parts: 64 bytes hold their tables, one vpermb looks all four up for 16
//   output channels, and vpdpbusd adds each channel's four bytes, doubled, to its int32:
//     raw = sum_parts (2 T[x] - M).
//   Two steps make a group; their bytes are added before the dot product. Bit i = e * weight_bits + b of x adds 2^b u_e where it
//   is 1 and 2^b (c_a - u_e) where it is 0: pack_a builds T of four such terms.
// Exactness. Two entries fit a byte: 2 M = 120 (W1A4), 180 (W2A4). |raw| <= c_w c_a K must fit int32 (sums on the way wrap):
//   K <= (2^31 - 1) / (c_w c_a), rounded down to whole groups.
// Packing. Activations: per step the four tables, 64 bytes. Weights: panel = [tap][group][step 2][nr / 16][64] bytes: byte b of a
//   vector belongs to channel b / 4 and part b % 4 and holds 16 (b % 4) + x, the index in the step. The dense one-row tile keeps
//   true 1- and 2-bit weights: [tap][group][nr / 16][64], x of the first step in the low four bits, of the second in the high.
// Ports. Per group and 16 channels two vpermb, one vpaddb, one vpdpbusd: 512 (W1A4) or 256 MAC (W2A4) in 4 operations, 2 cycles
//   where two 512-bit operations start a cycle: 256 and 128 MAC/cycle. Zen 4 shares a pipe between vpermb and vpdpbusd, which
//   takes just that (two to one fill three pipes of four); on Intel both vpermb are on p5, the rest on p0. Carried chain: one
//   vpdpbusd, 4-5 cycles, for 32 cycles of a tile. Tile 4 x 4 vectors: 16 accumulators, 8 indices, 2 tables, the twos and 3
//   temporaries; 16 loads for 32 cycles. Weights come in chunks that fit L1, tables stream past them from L2, 16 bytes a cycle:
//   4 or 8 bytes an element, so that building them costs 11 operations for 16 or 8 elements. Dense, 3 operations to unpack two
//   indices: 146 and 73 MAC/cycle.
#include "avx512.h"

namespace soniq {
namespace {

template <int NV, int WB, int AB, bool dense>
struct Operands {
  static constexpr int nr = 16 * NV, c_w = (1 << WB) - 1, c_a = (1 << AB) - 1;
  static constexpr int elements = 4 / WB, step_elements = 4 * elements, group = 2 * step_elements;
  static constexpr int64_t group_bytes = (dense ? 1 : 2) * NV * 64;
  static_assert(2 * elements * c_w * c_a <= 255, "two entries fit a byte");

  static int64_t groups(int64_t k) { return ceil_div(k, group); }
  static int64_t a_row_bytes(int64_t k) { return groups(k) * 2 * 64; }
  static int64_t w_bytes(int64_t cols, int64_t taps, int64_t k) { return ceil_div(cols, nr) * taps * groups(k) * group_bytes; }

  // Byte by byte the term of bit i: the code of the element that the bit belongs to, or what it lacks to c_a, times 2^b.
  static void pack_a(int64_t rows, int64_t k, const void* codes, int64_t ld_codes, uint8_t* out, int64_t ld_out) {
    alignas(64) uint8_t element[4][64], flip[4][64];
    for (int i = 0; i < 4; i++)
      for (int byte = 0; byte < 64; byte++) {
        element[i][byte] = static_cast<uint8_t>(byte / 16 * elements + i / WB);
        flip[i][byte] = static_cast<uint8_t>((byte >> i & 1) ? 0 : c_a << i % WB);
      }
    for (int64_t r = 0; r < rows; r++) {
      const uint8_t* src = static_cast<const uint8_t*>(codes) + r * ld_codes;
      uint8_t* dst = out + r * ld_out;
      for (int64_t first = 0; first < groups(k) * group; first += step_elements, dst += 64) {
        const int64_t live = min64(k - first, step_elements);
        const __m512i raw = _mm512_maskz_loadu_epi8(live <= 0 ? 0 : (1ull << live) - 1, src + first);
        Bytes table = {};
        unroll<4>([&](auto i) SONIQ_INLINE_LAMBDA {
          const Bytes u = (Bytes)_mm512_permutexvar_epi8(_mm512_load_si512(element[i]), raw);
          table += (i % WB ? u + u : u) ^ *reinterpret_cast<const Bytes*>(flip[i]);
        });
        _mm512_store_si512(dst, (__m512i)table);
      }
    }
  }

  static void pack_w(int64_t cols, int64_t taps, int64_t k, const int8_t* w, uint8_t* out) {
    for (int64_t n0 = 0; n0 < cols; n0 += nr)
      for (int64_t t = 0; t < taps; t++)
        for (int64_t first = 0; first < k; first += group, out += group_bytes)
          for (int at = 0; at < NV * 64; at++) {
            const int64_t n = n0 + at / 4, from = first + at % 4 * elements;
            const int8_t* channel = n < cols ? w + (n * taps + t) * k : nullptr;
            const int low = index(channel, from, k), high = index(channel, from + step_elements, k);
            out[at] = static_cast<uint8_t>(dense ? low | high << 4 : at % 4 * 16 + low);
            if (!dense) out[NV * 64 + at] = static_cast<uint8_t>(at % 4 * 16 + high);
          }
  }

 private:
  // Codes of a part side by side; past k, and where there is no channel, they are 0.
  static int index(const int8_t* w, int64_t first, int64_t k) {
    int x = 0;
    for (int e = 0; w && e < elements && first + e < k; e++) x |= (w[first + e] + c_w) / 2 << (e * WB);
    return x;
  }
};

// What both steps of a group add to the sums of 16 channels.
SONIQ_INLINE void add_group(Ints& sum, __m512i index0, __m512i index1, const __m512i (&table)[2]) {
  const Bytes both = (Bytes)_mm512_permutexvar_epi8(index0, table[0]) + (Bytes)_mm512_permutexvar_epi8(index1, table[1]);
  sum = (Ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)both, _mm512_set1_epi8(2));
}

SONIQ_INLINE Ints biased(int64_t padded_k, int64_t c) { return (Ints)_mm512_set1_epi32(static_cast<int32_t>(-padded_k * c)); }

template <int MR, int NV, int WB, int AB>
struct Lookup : Operands<NV, WB, AB, false> {
  using O = Operands<NV, WB, AB, false>;
  static constexpr int mr = MR;
  static constexpr int64_t chunk_groups = (16 << 10) / O::group_bytes, l2_share = 1 << 19;

  // As many rows as L2 holds the tables of are finished before the next ones.
  static void run(int64_t rows, int64_t cols, int64_t taps, int64_t k, const uint8_t* const* a, int64_t ld_a, const uint8_t* w,
                  void* acc, int64_t ld_acc) {
    const Ints bias = biased(taps * O::groups(k) * O::group, O::c_w * O::c_a);
    const int64_t fitting = (l2_share / (taps * O::a_row_bytes(k)) / MR + 1) * MR;
    for (int64_t r = 0; r < rows; r += fitting) {
      int32_t* out = static_cast<int32_t*>(acc) + r * ld_acc;
      const uint8_t* panel = w;
      for (int64_t n = 0; n < cols; n += O::nr)
        for_chunks(taps, O::groups(k), chunk_groups, [&](int64_t t, int64_t n_taps, int64_t g, int64_t n_groups) {
          chunk(min64(fitting, rows - r), n_taps, n_groups, a + t * ld_a + r, ld_a, g * 128, panel, out + n, ld_acc, bias, t + g == 0);
          panel += n_taps * n_groups * O::group_bytes;
        });
    }
  }

 private:
  static void chunk(int64_t rows, int64_t taps, int64_t groups, const uint8_t* const* a, int64_t ld_a, int64_t offset,
                    const uint8_t* w, int32_t* out, int64_t ld_out, Ints bias, bool first) {
    for_row_blocks<MR>(rows, [&](auto block, int64_t r) {
      tile(block, taps, groups, a + r, ld_a, offset, w, out + r * ld_out, ld_out, bias, first);
    });
  }

  template <int R>
  static void tile(Index<R>, int64_t taps, int64_t groups, const uint8_t* const* a, int64_t ld_a, int64_t offset, const uint8_t* w,
                   int32_t* out, int64_t ld_out, Ints bias, bool first) {
    Ints sum[R][NV];
    const uint8_t* row[R];
    unroll<R * NV>([&](auto i) SONIQ_INLINE_LAMBDA {
      sum[i / NV][i % NV] = first ? bias : (Ints)_mm512_loadu_si512(out + i / NV * ld_out + i % NV * 16);
    });
    for (int64_t t = 0; t < taps; t++, a += ld_a) {
      unroll<R>([&](auto r) SONIQ_INLINE_LAMBDA { row[r] = a[r] + offset; });
#pragma GCC unroll 1
      for (int64_t g = 0; g < groups; g++, w += O::group_bytes) {
        __m512i index[2 * NV];
        unroll<2 * NV>([&](auto v) SONIQ_INLINE_LAMBDA { index[v] = _mm512_load_si512(w + v * 64); });
        unroll<R>([&](auto r) SONIQ_INLINE_LAMBDA {
          const __m512i table[2] = {_mm512_load_si512(row[r] + g * 128), _mm512_load_si512(row[r] + g * 128 + 64)};
          unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA { add_group(sum[r][v], index[v], index[NV + v], table); });
          SONIQ_ROW_BARRIER();
        });
      }
    }
    unroll<R * NV>([&](auto i) SONIQ_INLINE_LAMBDA {
      _mm512_storeu_si512(out + i / NV * ld_out + i % NV * 16, (__m512i)sum[i / NV][i % NV]);
    });
  }
};

template <int NV, int WB, int AB>
struct DenseRow : Operands<NV, WB, AB, true> {
  using O = Operands<NV, WB, AB, true>;
  static constexpr int mr = 1;

  static void run(int64_t rows, int64_t cols, int64_t taps, int64_t k, const uint8_t* const* a, int64_t ld_a, const uint8_t* w,
                  void* acc, int64_t ld_acc) {
    for (int64_t n = 0; n < cols; n += O::nr, w += taps * O::groups(k) * O::group_bytes)
      for (int64_t r = 0; r < rows; r++) row(taps, O::groups(k), a + r, ld_a, w, static_cast<int32_t*>(acc) + r * ld_acc + n);
  }

 private:
  static void row(int64_t taps, int64_t groups, const uint8_t* const* a, int64_t ld_a, const uint8_t* w, int32_t* out) {
    Ints sum[NV];
    unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA { sum[v] = biased(taps * groups * O::group, O::c_w * O::c_a); });
    for (int64_t t = 0; t < taps; t++, a += ld_a)
#pragma GCC unroll 1
      for (int64_t g = 0; g < groups; g++, w += O::group_bytes) {
        const __m512i table[2] = {_mm512_load_si512(*a + g * 128), _mm512_load_si512(*a + g * 128 + 64)};
        prefetch_stream<NV>(w);
        unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA {
          const __m512i packed = _mm512_load_si512(w + v * 64);
          add_group(sum[v], in_step(packed), in_step(_mm512_srli_epi16(packed, 4)), table);
        });
      }
    unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA { _mm512_storeu_si512(out + v * 16, (__m512i)sum[v]); });
  }

  // Four bits of each byte, with the number of its part above them.
  static SONIQ_INLINE __m512i in_step(__m512i packed) {
    constexpr int and_or = 0xea;
    return _mm512_ternarylogic_epi64(packed, _mm512_set1_epi8(15), _mm512_set1_epi32(0x30201000), and_or);
  }
};

}  // namespace
}  // namespace soniq

SONIQ_KERNEL(gemm_z4_z1_s32_4x64x32__avx512vbmi_lookup, "avx512f,avx512bw,avx512vbmi,avx512vnni", 32, 143165568, soniq::Lookup<4, 4, 1, 4>)
SONIQ_KERNEL(gemm_z4_z1_s32_1x64x32__avx512vbmi_lookup, "avx512f,avx512bw,avx512vbmi,avx512vnni", 32, 143165568, soniq::DenseRow<4, 1, 4>)
SONIQ_KERNEL(gemm_z4_z2_s32_4x64x16__avx512vbmi_lookup, "avx512f,avx512bw,avx512vbmi,avx512vnni", 16, 47721856, soniq::Lookup<4, 4, 2, 4>)
SONIQ_KERNEL(gemm_z4_z2_s32_1x64x16__avx512vbmi_lookup, "avx512f,avx512bw,avx512vbmi,avx512vnni", 16, 47721856, soniq::DenseRow<4, 2, 4>)
