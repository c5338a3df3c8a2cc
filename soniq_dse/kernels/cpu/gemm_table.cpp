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
// Taps at once. In one vector of columns, a lookup would load a table of its own (Zen 4: one 64-byte load a cycle, like vpermb).
//   Where three taps of 8 rows read 10 pixels, as those under a row of a 3x3 kernel do at stride 1, a pixel's table serves them
//   all: 13 loads for 24 lookups. Pointers show whether it is so. Beside a vpaddb, Zen 4 starts a vpermb each 1.28 cycles.
#include "table64.h"

namespace soniq {
namespace {

template <int MR, int NV, class F, int Joined = 1>
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
    if constexpr (Joined > 1 && R == MR) {
      if (slides(taps, a, ld_a)) return joined_tile(taps, steps, a, ld_a, w, out, ld_out);
    }
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

  // Whether each row finds under a tap what the row before it finds under the next one, `Joined` taps at a time: the pixels
  // under one row of a convolution's kernel.
  static bool slides(int64_t taps, const uint8_t* const* a, int64_t ld_a) {
    if (taps % Joined != 0) return false;
    for (int64_t t = 0; t < taps; t += Joined)
      for (int64_t next = t + 1; next < t + Joined; next++)
        for (int r = 1; r < MR; r++)
          if (a[next * ld_a + r - 1] != a[(next - 1) * ld_a + r]) return false;
    return true;
  }

  // MR rows which slide: `Joined` taps at once. The reader of hot loops tells this function by its name.
  static __attribute__((noinline)) void joined_tile(int64_t taps, int64_t steps, const uint8_t* const* a, int64_t ld_a,
                                                    const uint8_t* w, int32_t* out, int64_t ld_out) {
    constexpr int pixels = MR + Joined - 1, block = F::flush / Joined;
    const int32_t bias = static_cast<int32_t>(-F::max_entry * taps * steps);
    Bytes bytes[MR][NV];
    Sums<MR, NV> sums;
    const uint8_t* pixel[pixels];
    for (int64_t t = 0; t < taps; t += Joined, a += Joined * ld_a, w += (Joined - 1) * steps * nr) {
      unroll<pixels>([&](auto p) SONIQ_INLINE_LAMBDA { pixel[p] = p < MR ? a[p] : a[(p - MR + 1) * ld_a + MR - 1]; });
      for (int64_t s = 0, end; s < steps; s = end) {
        end = min64(s + block, steps);
        unroll<MR * NV>([&](auto i) SONIQ_INLINE_LAMBDA { bytes[i / NV][i % NV] = Bytes{}; });
#pragma GCC unroll 1
        for (int64_t i = s; i < end; i++, w += nr) joined_step(pixel, i, w, steps * nr, bytes);
        sums.add(bytes, (end - s) * Joined);
        if (sums.steps > F::wide_steps - F::flush) sums.spill(out, ld_out, bias);
      }
    }
    if (sums.steps > 0) sums.spill(out, ld_out, bias);
  }

  // One table of each pixel serves all rows and taps that read it.
  static SONIQ_INLINE void joined_step(const uint8_t* const (&pixel)[MR + Joined - 1], int64_t s, const uint8_t* w, int64_t ld_w,
                                       Bytes (&bytes)[MR][NV]) {
    __m512i index[Joined][NV];
    unroll<Joined * NV>([&](auto i) SONIQ_INLINE_LAMBDA {
      index[i / NV][i % NV] = _mm512_load_si512(w + i / NV * ld_w + i % NV * 64);
    });
    unroll<MR + Joined - 1>([&](auto p) SONIQ_INLINE_LAMBDA {
      const __m512i table = F::table(pixel[p], s);
      unroll<Joined * NV>([&](auto i) SONIQ_INLINE_LAMBDA {
        constexpr int tap = i / NV, r = p - tap, v = i % NV;
        if constexpr (r >= 0 && r < MR) bytes[r][v] += (Bytes)_mm512_permutexvar_epi8(index[tap][v], table);
      });
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
SONIQ_KERNEL(gemm_z2_z2_s32_8x64x3__avx512vbmi_table, "avx512f,avx512bw,avx512vbmi", 3, 238609293, soniq::Table<8, 1, soniq::Format<2, 2>, 3>)
SONIQ_KERNEL(gemm_z3_z3_s32_4x128x4__avx512vbmi_table, "avx512f,avx512bw,avx512vbmi", 4, 43826196, soniq::Table<4, 2, soniq::Format<3, 3>>)
SONIQ_KERNEL(gemm_z4_z1_s32_2x256x12__avx512vbmi_table, "avx512f,avx512bw,avx512vbmi", 12, 143165568, soniq::Table<2, 4, soniq::Format<1, 4>>)
SONIQ_KERNEL(gemm_z4_z1_s32_4x128x12__avx512vbmi_table, "avx512f,avx512bw,avx512vbmi", 12, 143165568, soniq::Table<4, 2, soniq::Format<1, 4>>)
SONIQ_KERNEL(gemm_z4_z2_s32_2x256x3__avx512vbmi_table, "avx512f,avx512bw,avx512vbmi", 3, 47721858, soniq::Table<2, 4, soniq::Format<2, 4>>)
SONIQ_KERNEL(gemm_z4_z2_s32_4x128x3__avx512vbmi_table, "avx512f,avx512bw,avx512vbmi", 3, 47721858, soniq::Table<4, 2, soniq::Format<2, 4>>)
SONIQ_KERNEL(gemm_z2_z2_s32_1x256x12__avx512vbmi_table, "avx512f,avx512bw,avx512vbmi", 12, 238609284, soniq::DenseRow<4>)
