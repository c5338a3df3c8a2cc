// W1A1, W1A2, W2A2, W3A3, W1A4 and W2A4 by 64-entry tables in a register (AVX512_VBMI vpermb).
//
// Equation. A step takes the E = 6 / weight_bits elements whose weight codes fill 6 bits. For the activations of those
//   elements a table T of 64 bytes holds, for every possible weight index x,
//     T[x] = sum_e (z_w(x, e) z_a(e) + c_w c_a) / 2   in 0..M,  M = E c_w c_a,
//   an integer since all z are odd. One vpermb looks up 64 output channels, and
//     raw = 2 sum_steps T[x] - M steps.
//   Where the activations of a step (or of half a step) fill at most 6 bits, T is a row of one constant 4 KB table (or the
//   sum of a row of each of two) and activations are packed as row offsets. 4-bit activations do not, and pack_a builds T
//   itself: with z_w(x, e) = sum_b 2^b s, bit i = e * weight_bits + b of x adds 2^b u_e where it is 1 and 2^b (c_a - u_e)
//   where it is 0.
// Exactness. A byte holds FLUSH = floor(255 / M) steps. Bytes are then added to 16-bit sums, once whole (`all`, modulo
//   2^16: even bytes + 256 odd bytes) and once shifted right by 8 (`odd`), so even = all - 256 odd. These hold floor(65535 /
//   M) steps and are then spilled to int32. k_max = floor((2^31 - 1) / (c_w c_a)), rounded down to whole groups.
//     M, FLUSH: W1A1 6, 42 · W1A2 18, 14 · W2A2 27, 9 · W3A3 98, 2 · W1A4 90, 2 · W2A4 135, 1
// Packing. Weights: panel = [tap][step][nr] bytes, element e of the step at bits e * weight_bits; of each 64 bytes the even
//   ones are the first 32 channels. Activations: per step one u16 (W1A2: two) = 64 * code, or the 64-byte table. The dense
//   one-row tile keeps true 2-bit weights: three vectors of 64 bytes, each with three elements in bits 0..5, whose bits 6..7
//   together make a fourth index; panel = [tap][12 elements][nr / 64][3][64].
// Ports. Per step and 64 channels one vpermb, one vpaddb (where FLUSH is 1 none, where it is 2 one in two steps), and 3 / FLUSH
//   operations of widening (a W1A2 step also one vpaddb per row for the second table row). With two 512-bit operations a cycle,
//   one of them vpermb (Intel p5, one pipe of Zen 4), the bound is 371 (W1A1), 311 (W1A2, 4 vectors), 165 (W2A2), 85 (W3A3), 256
//   (W1A4) and 96 MAC/cycle (W2A4). Carried chains: vpaddb, 1 cycle; vpermb's 3 cycles lie outside them. Tile 6 x 4 vectors: 24
//   byte accumulators, 4 indices, a table and 3 temporaries fill the 32 registers, the 16-bit sums live in L1 and are touched
//   once a block: best where FLUSH is 9 or more. Otherwise 8 vectors (2 x 4, 4 x 2), whose 16-bit sums stay in registers. On
//   Intel additions that are issued to p5 delay lookups: 93 % of the bound without any load. W3A3 pays where a vpdpbusd starts
//   once a cycle (Zen 4: 64 MAC/cycle), not where two do.
#include "avx512.h"

namespace soniq {
namespace {

// One bit pair: how many elements a step has, its constant tables, and the packing of a row.
template <int WB, int AB>
struct Format {
  static constexpr int c_w = (1 << WB) - 1, c_a = (1 << AB) - 1;
  static constexpr int step_elements = 6 / WB;
  static constexpr int max_entry = step_elements * c_w * c_a, flush = 255 / max_entry, wide_steps = 65535 / max_entry;
  static constexpr int part_elements = 6 / AB;  // elements whose activations choose one row of a constant table
  static constexpr bool built = step_elements > 2 * part_elements;  // from more than two rows: while packing
  static constexpr int parts = built ? 0 : step_elements / part_elements;
  static constexpr int step_bytes = built ? 64 : 2 * parts;

  struct Tables {
    alignas(64) uint8_t row[parts + built][64][64];
  };
  static constexpr Tables make_tables() {
    Tables tables{};
    for (int part = 0; part < parts; part++)
      for (int code = 0; code < 64; code++)
        for (int index = 0; index < 64; index++)
          for (int e = 0; e < part_elements; e++) {
            const int z_a = 2 * (code >> (e * AB) & c_a) - c_a;
            const int z_w = 2 * (index >> ((part * part_elements + e) * WB) & c_w) - c_w;
            tables.row[part][code][index] += (z_w * z_a + c_w * c_a) / 2;
          }
    return tables;
  }
  static constexpr Tables tables = make_tables();

  // The table of one step of a packed row.
  static SONIQ_INLINE __m512i table(const uint8_t* row, int64_t step) {
    if constexpr (built) {
      return _mm512_load_si512(row + step * 64);
    } else {
      const uint16_t* offset = reinterpret_cast<const uint16_t*>(row) + step * parts;
      const __m512i first = _mm512_load_si512(&tables.row[0][0][0] + offset[0]);
      if constexpr (parts == 1) return first;
      return _mm512_add_epi8(first, _mm512_load_si512(&tables.row[parts - 1][0][0] + offset[parts - 1]));
    }
  }

  static void pack_row(int64_t k, int64_t steps, const uint8_t* codes, uint8_t* out) {
    if constexpr (built)
      build_tables(k, steps, codes, out);
    else
      pack_offsets(k, steps * parts, codes, reinterpret_cast<uint16_t*>(out));
  }

  // Codes of the elements first, first + 1 ... of one output channel side by side; past k they are 0.
  static int weight_index(const int8_t* w, int64_t first, int64_t k, int elements) {
    int index = 0;
    for (int e = 0; e < elements && first + e < k; e++) index |= (w[first + e] + c_w) / 2 << (e * WB);
    return index;
  }

 private:
  static SONIQ_INLINE __m512i load_codes(const uint8_t* codes, int64_t live) {
    return _mm512_maskz_loadu_epi8(live <= 0 ? 0 : (1ull << live) - 1, codes);
  }

  // The codes of a part are spread to a lane of 4 or 8 bytes and joined there by multiplications; 32 or 48 codes at a time.
  static void pack_offsets(int64_t k, int64_t offsets, const uint8_t* codes, uint16_t* out) {
    constexpr int lane = part_elements <= 3 ? 4 : 8, lanes = 64 / lane, span = lanes * part_elements;
    constexpr __mmask64 used = (lane == 4 ? 0x1111111111111111 : 0x0101010101010101) * ((1 << part_elements) - 1);
    alignas(64) uint8_t spread[64], places[64];
    for (int i = 0; i < 64; i++) {
      spread[i] = static_cast<uint8_t>(i / lane * part_elements + i % lane);
      places[i] = static_cast<uint8_t>(i % lane < part_elements ? 1 << i % lane * AB : 0);
    }
    const __m512i order = _mm512_load_si512(spread), place = _mm512_load_si512(places);
    for (int64_t i = 0; i < offsets; i += lanes, codes += span, k -= span) {
      const __m512i raw = load_codes(codes, min64(k, span));
      const __m512i pairs = _mm512_maddubs_epi16(_mm512_maskz_permutexvar_epi8(used, order, raw), place);
      const __m512i code = _mm512_madd_epi16(pairs, _mm512_set1_epi16(64));
      const __mmask16 keep = static_cast<__mmask16>((1u << min64(offsets - i, lanes)) - 1);
      if constexpr (lane == 4)
        _mm512_mask_cvtepi32_storeu_epi16(out + i, keep, code);
      else
        _mm512_mask_cvtepi64_storeu_epi16(out + i, static_cast<__mmask8>(keep),
                                          _mm512_add_epi64(code, _mm512_srli_epi64(code, 32)));
    }
  }

  // Eight steps at a time. Lane j of low (high) holds, for each value of the index's low (high) three bits, what they
  // contribute to the table of step j: 64 entries = 8 low + 8 high.
  static void build_tables(int64_t k, int64_t steps, const uint8_t* codes, uint8_t* out) {
    alignas(64) uint8_t element[6][64], flip[6][64], low_of[64], high_of[64];
    for (int i = 0; i < 64; i++) {
      low_of[i] = static_cast<uint8_t>(i % 8), high_of[i] = static_cast<uint8_t>(i / 8);
      for (int bit = 0; bit < 6; bit++) {
        element[bit][i] = static_cast<uint8_t>(i / 8 * step_elements + bit / WB);
        flip[bit][i] = static_cast<uint8_t>((i >> bit % 3 & 1) ? 0 : c_a << bit % WB);
      }
    }
    constexpr int span = 8 * step_elements;
    for (int64_t s = 0; s < steps; s += 8, codes += span, k -= span) {
      const __m512i raw = load_codes(codes, min64(k, span));
      __m512i half[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
      for (int bit = 0; bit < 6; bit++) {
        __m512i u = _mm512_permutexvar_epi8(_mm512_load_si512(element[bit]), raw);
        if (bit % WB) u = _mm512_add_epi8(u, u);
        half[bit / 3] = _mm512_add_epi8(half[bit / 3], _mm512_xor_si512(u, _mm512_load_si512(flip[bit])));
      }
      for (int j = 0; j < 8 && s + j < steps; j++, out += 64) {
        const __m512i lane = _mm512_set1_epi8(static_cast<char>(8 * j));
        const __m512i low = _mm512_permutexvar_epi8(_mm512_add_epi8(_mm512_load_si512(low_of), lane), half[0]);
        const __m512i high = _mm512_permutexvar_epi8(_mm512_add_epi8(_mm512_load_si512(high_of), lane), half[1]);
        _mm512_store_si512(out, _mm512_add_epi8(low, high));
      }
    }
  }
};

// 16-bit sums of a tile of R rows by 64 * NV channels.
template <int R, int NV>
struct Sums {
  Words all[R][NV] = {}, odd[R][NV] = {};
  int64_t steps = 0;
  bool spilled = false;

  SONIQ_INLINE void add(const Bytes (&bytes)[R][NV], int64_t count) {
    unroll<R * NV>([&](auto i) SONIQ_INLINE_LAMBDA {
      all[i / NV][i % NV] += (Words)bytes[i / NV][i % NV];
      odd[i / NV][i % NV] += (Words)bytes[i / NV][i % NV] >> 8;
    });
    steps += count;
  }

  // out = bias + 2 * sums the first time, out += 2 * sums later.
  SONIQ_INLINE void spill(int32_t* out, int64_t ld_out, int32_t bias) {
    unroll<R * NV>([&](auto i) SONIQ_INLINE_LAMBDA {
      Words &whole = all[i / NV][i % NV], &upper = odd[i / NV][i % NV];
      spill_vector((__m512i)(whole - (upper << 8)), (__m512i)upper, out + i / NV * ld_out + i % NV * 64, bias);
      whole = upper = Words{};
    });
    steps = 0, spilled = true;
  }

 private:
  SONIQ_INLINE void spill_vector(__m512i even, __m512i odds, int32_t* out, int32_t bias) const {
    const __m256i quarter[4] = {_mm512_castsi512_si256(even), _mm512_extracti64x4_epi64(even, 1),
                                _mm512_castsi512_si256(odds), _mm512_extracti64x4_epi64(odds, 1)};
    unroll<4>([&](auto q) SONIQ_INLINE_LAMBDA {
      const __m512i sum = _mm512_slli_epi32(_mm512_cvtepu16_epi32(quarter[q]), 1);
      const __m512i base = spilled ? _mm512_loadu_si512(out + q * 16) : _mm512_set1_epi32(bias);
      _mm512_storeu_si512(out + q * 16, _mm512_add_epi32(base, sum));
    });
  }
};

// Channel of byte `slot` of a panel: even bytes are the first 32 channels of their vector.
constexpr int channel_of(int slot) { return slot / 64 * 64 + slot % 2 * 32 + slot % 64 / 2; }

template <int MR, int NV, class F>
struct Table {
  static constexpr int mr = MR, nr = 64 * NV;
  // Where a byte holds only one or two steps, blocks are unrolled and steps are padded to whole blocks.
  static constexpr bool unrolled = F::flush <= 2;
  static constexpr int group_steps = unrolled ? F::flush : 1;

  static int64_t steps(int64_t k) { return ceil_div(k, F::step_elements * group_steps) * group_steps; }
  static int64_t a_row_bytes(int64_t k) { return steps(k) * F::step_bytes; }
  static int64_t w_bytes(int64_t cols, int64_t taps, int64_t k) { return ceil_div(cols, nr) * taps * steps(k) * nr; }

  static void pack_a(int64_t rows, int64_t k, const void* codes, int64_t ld_codes, uint8_t* out, int64_t ld_out) {
    for (int64_t r = 0; r < rows; r++)
      F::pack_row(k, steps(k), static_cast<const uint8_t*>(codes) + r * ld_codes, out + r * ld_out);
  }

  static void pack_w(int64_t cols, int64_t taps, int64_t k, const int8_t* w, uint8_t* out) {
    for (int64_t n0 = 0; n0 < cols; n0 += nr)
      for (int64_t t = 0; t < taps; t++)
        for (int64_t s = 0; s < steps(k); s++)
          for (int slot = 0; slot < nr; slot++) {
            const int64_t n = n0 + channel_of(slot), first = s * F::step_elements;
            *out++ = n < cols ? static_cast<uint8_t>(F::weight_index(w + (n * taps + t) * k, first, k, F::step_elements)) : 0;
          }
  }

  // Tables built while packing outgrow L2: as many rows as fit there are finished before the next ones.
  static void run(int64_t rows, int64_t cols, int64_t taps, int64_t k, const uint8_t* const* a, int64_t ld_a, const uint8_t* w,
                  void* acc, int64_t ld_acc) {
    constexpr int64_t l2_share = 1 << 19;
    const int64_t fitting = F::built ? ceil_div(l2_share / (taps * a_row_bytes(k)) + 1, MR) * MR : rows;
    for (int64_t r0 = 0; r0 < rows; r0 += fitting) {
      const uint8_t* panel = w;
      for (int64_t n = 0; n < cols; n += nr, panel += taps * steps(k) * nr)
        for_row_blocks<MR>(min64(fitting, rows - r0), [&](auto block, int64_t r) {
          int32_t* out = static_cast<int32_t*>(acc) + (r0 + r) * ld_acc + n;
          tile(block, taps, steps(k), a + r0 + r, ld_a, panel, out, ld_acc);
        });
    }
  }

 private:
  template <int R>
  static void tile(Index<R>, int64_t taps, int64_t steps, const uint8_t* const* a, int64_t ld_a, const uint8_t* w, int32_t* out,
                   int64_t ld_out) {
    const int32_t bias = static_cast<int32_t>(-F::max_entry * taps * steps);
    Bytes bytes[R][NV];
    Sums<R, NV> sums;
    const uint8_t* row[R];
    for (int64_t t = 0; t < taps; t++, a += ld_a) {
      unroll<R>([&](auto r) SONIQ_INLINE_LAMBDA { row[r] = a[r]; });
      for (int64_t s = 0, end; s < steps; s = end) {
        end = unrolled ? s + F::flush : min64(s + F::flush, steps);
        unroll<R * NV>([&](auto i) SONIQ_INLINE_LAMBDA { bytes[i / NV][i % NV] = Bytes{}; });
        if constexpr (unrolled) {
          unroll<F::flush>([&](auto i) SONIQ_INLINE_LAMBDA { step(row, s + i, w + i * nr, bytes); });
          w += F::flush * nr;
        } else {
#pragma GCC unroll 1
          for (int64_t i = s; i < end; i++, w += nr) step(row, i, w, bytes);
        }
        sums.add(bytes, end - s);
        if (sums.steps > F::wide_steps - F::flush) sums.spill(out, ld_out, bias);
      }
    }
    if (sums.steps > 0) sums.spill(out, ld_out, bias);
  }

  template <int R>
  static SONIQ_INLINE void step(const uint8_t* const (&row)[R], int64_t s, const uint8_t* w, Bytes (&bytes)[R][NV]) {
    __m512i index[NV];
    if constexpr (R == 1) prefetch_stream<NV>(w);
    unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA { index[v] = _mm512_load_si512(w + v * 64); });
    unroll<R>([&](auto r) SONIQ_INLINE_LAMBDA {
      const __m512i table = F::table(row[r], s);
      unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA { bytes[r][v] += (Bytes)_mm512_permutexvar_epi8(index[v], table); });
      SONIQ_ROW_BARRIER();
    });
  }
};

// One row, W2A2, weights of true 2 bits.
template <int NV>
struct DenseRow {
  using F = Format<2, 2>;
  static constexpr int mr = 1, nr = 64 * NV;
  static constexpr int64_t group = 12;  // elements in three bytes

  static int64_t groups(int64_t k) { return ceil_div(k, group); }
  static int64_t a_row_bytes(int64_t k) { return groups(k) * 4 * F::step_bytes; }
  static int64_t w_bytes(int64_t cols, int64_t taps, int64_t k) { return ceil_div(cols, nr) * taps * groups(k) * nr * 3; }

  static void pack_a(int64_t rows, int64_t k, const void* codes, int64_t ld_codes, uint8_t* out, int64_t ld_out) {
    for (int64_t r = 0; r < rows; r++)
      F::pack_row(k, groups(k) * 4, static_cast<const uint8_t*>(codes) + r * ld_codes, out + r * ld_out);
  }

  static void pack_w(int64_t cols, int64_t taps, int64_t k, const int8_t* w, uint8_t* out) {
    for (int64_t n0 = 0; n0 < cols; n0 += nr)
      for (int64_t t = 0; t < taps; t++)
        for (int64_t i = 0; i < k; i += group)
          for (int v = 0; v < NV; v++)
            for (int q = 0; q < 3; q++)
              for (int byte = 0; byte < 64; byte++) {
                const int64_t n = n0 + channel_of(v * 64 + byte);
                const int8_t* channel = w + (n * taps + t) * k;
                *out++ = n < cols ? static_cast<uint8_t>(F::weight_index(channel, i + 3 * q, k, 3) |
                                                         F::weight_index(channel, i + 9 + q, k, 1) << 6)
                                  : 0;
              }
  }

  static void run(int64_t rows, int64_t cols, int64_t taps, int64_t k, const uint8_t* const* a, int64_t ld_a, const uint8_t* w,
                  void* acc, int64_t ld_acc) {
    for (int64_t n = 0; n < cols; n += nr, w += taps * groups(k) * nr * 3)
      for (int64_t r = 0; r < rows; r++) row(taps, groups(k), a + r, ld_a, w, static_cast<int32_t*>(acc) + r * ld_acc + n);
  }

 private:
  static void row(int64_t taps, int64_t groups, const uint8_t* const* a, int64_t ld_a, const uint8_t* w, int32_t* out) {
    const int32_t bias = static_cast<int32_t>(-F::max_entry * taps * groups * 4);
    Sums<1, NV> sums;
    for (int64_t t = 0; t < taps; t++)
#pragma GCC unroll 1
      for (int64_t g = 0; g < groups; g++, w += nr * 3) {
        __m512i table[4];
        Bytes bytes[1][NV];
        unroll<4>([&](auto q) SONIQ_INLINE_LAMBDA { table[q] = F::table(a[t * ld_a], g * 4 + q); });
        prefetch_stream<3 * NV>(w);
        unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA { bytes[0][v] = look_up(w + v * 192, table); });
        sums.add(bytes, 4);
        if (sums.steps > F::wide_steps - 4) sums.spill(out, 0, bias);
      }
    if (sums.steps > 0) sums.spill(out, 0, bias);
  }

  // Four lookups; vpermb ignores the two upper bits of an index.
  static SONIQ_INLINE Bytes look_up(const uint8_t* w, const __m512i (&table)[4]) {
    constexpr int select = 0xca;  // vpternlog: first operand ? second : third
    const __m512i b0 = _mm512_load_si512(w), b1 = _mm512_load_si512(w + 64), b2 = _mm512_load_si512(w + 128);
    const __m512i top0 = _mm512_srli_epi16(b0, 6), top1 = _mm512_srli_epi16(b1, 4), top2 = _mm512_srli_epi16(b2, 2);
    const __m512i low = _mm512_ternarylogic_epi64(_mm512_set1_epi8(0x03), top0, top1, select);
    const __m512i b3 = _mm512_ternarylogic_epi64(_mm512_set1_epi8(0x0f), low, top2, select);
    return (Bytes)_mm512_permutexvar_epi8(b0, table[0]) + (Bytes)_mm512_permutexvar_epi8(b1, table[1]) +
           (Bytes)_mm512_permutexvar_epi8(b2, table[2]) + (Bytes)_mm512_permutexvar_epi8(b3, table[3]);
  }
};

}  // namespace
}  // namespace soniq

SONIQ_KERNEL(gemm_z1_z1_s32_6x256x6__avx512vbmi_table, "avx512f,avx512bw,avx512vbmi", 6, 2147483646, soniq::Table<6, 4, soniq::Format<1, 1>>)
SONIQ_KERNEL(gemm_z2_z1_s32_6x256x6__avx512vbmi_table, "avx512f,avx512bw,avx512vbmi", 6, 715827882, soniq::Table<6, 4, soniq::Format<1, 2>>)
SONIQ_KERNEL(gemm_z2_z1_s32_5x128x6__avx512vbmi_table, "avx512f,avx512bw,avx512vbmi", 6, 715827882, soniq::Table<5, 2, soniq::Format<1, 2>>)
SONIQ_KERNEL(gemm_z2_z2_s32_6x256x3__avx512vbmi_table, "avx512f,avx512bw,avx512vbmi", 3, 238609293, soniq::Table<6, 4, soniq::Format<2, 2>>)
SONIQ_KERNEL(gemm_z2_z2_s32_5x128x3__avx512vbmi_table, "avx512f,avx512bw,avx512vbmi", 3, 238609293, soniq::Table<5, 2, soniq::Format<2, 2>>)
SONIQ_KERNEL(gemm_z2_z2_s32_8x64x3__avx512vbmi_table, "avx512f,avx512bw,avx512vbmi", 3, 238609293, soniq::Table<8, 1, soniq::Format<2, 2>>)
SONIQ_KERNEL(gemm_z3_z3_s32_4x128x4__avx512vbmi_table, "avx512f,avx512bw,avx512vbmi", 4, 43826196, soniq::Table<4, 2, soniq::Format<3, 3>>)
SONIQ_KERNEL(gemm_z4_z1_s32_2x256x12__avx512vbmi_table, "avx512f,avx512bw,avx512vbmi", 12, 143165568, soniq::Table<2, 4, soniq::Format<1, 4>>)
SONIQ_KERNEL(gemm_z4_z1_s32_4x128x12__avx512vbmi_table, "avx512f,avx512bw,avx512vbmi", 12, 143165568, soniq::Table<4, 2, soniq::Format<1, 4>>)
SONIQ_KERNEL(gemm_z4_z2_s32_2x256x3__avx512vbmi_table, "avx512f,avx512bw,avx512vbmi", 3, 47721858, soniq::Table<2, 4, soniq::Format<2, 4>>)
SONIQ_KERNEL(gemm_z4_z2_s32_4x128x3__avx512vbmi_table, "avx512f,avx512bw,avx512vbmi", 3, 47721858, soniq::Table<4, 2, soniq::Format<2, 4>>)
SONIQ_KERNEL(gemm_z2_z2_s32_1x256x12__avx512vbmi_table, "avx512f,avx512bw,avx512vbmi", 12, 238609284, soniq::DenseRow<4>)
