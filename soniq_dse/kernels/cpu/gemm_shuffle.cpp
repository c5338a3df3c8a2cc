// W1A1, W1A2, W2A2, W1A4 and W2A4 by 16-entry tables in a register (AVX2 vpshufb).
//
// Equation. A step takes the G = 4 / weight_bits elements whose weight codes fill 4 bits. For the activations of those elements
// a table T of 16 bytes holds, for every possible weight index x,
//   T[x] = sum_e (z_w(x, e) z_a(e) + c_w c_a) / 2   in 0..M,  M = G c_w c_a,
// an integer since all z are odd. One vpshufb looks up 32 output channels, and
//   raw = 2 sum_steps T[x] - M steps.
// Where the activations of a step fill at most 8 bits, T is a row of one constant table: activations are packed as row offsets.
// Where they do not (W1A4), pack_a builds T itself.
// Exactness. Bytes hold FLUSH = floor(255 / M) steps. They are then added to 16-bit sums, once whole (`all`, modulo 2^16: even
// bytes + 256 odd bytes) and once shifted right by 8 (`odd`), so even = all - 256 odd; these hold floor(65535 / M) steps, after
// which they go to int32. k_max = floor((2^31 - 1) / (c_w c_a)), rounded down to whole groups.
//   W1A1: M 4, FLUSH 63 (62 where dense) · W1A2: 12, 21 (20) · W2A2: 18, 14 · W1A4: 60, 4 · W2A4: 90, 2
// Packing. Weights: panel = [tap][step][nr] bytes, one index each, element e of the step at bits e * weight_bits; 32 bytes are 32
//   channels, even bytes the first 16 of them. Dense (the one-row tile, bound by the weights' cache level): two steps a byte,
//   the even one in the low nibble. Activations: 16 * code per step, a u8 (W1A2, W2A4: u16); or the 16-byte table.
// Ports. Per step and 32 channels one vpshufb and one vpaddb, and 3 / FLUSH operations for widening: MAC/cycle at most
//   32 G / (2 + 3 / FLUSH) * 3 where three vector operations start a cycle, two of them shuffles (Intel from Ice Lake):
//   W1A1 188, W1A2 179, W2A2 87, W1A4 140, W2A4 55; four and two (Zen 3, 4): W1A1 250. Tile 6 x 2 vectors: 12 byte
//   accumulators, 2 indices, a table and a temporary = 16 registers; the 16-bit sums live in L1.
#include "avx2.h"

namespace soniq {
namespace {

// Elements a step consumes, the constant table, and the packing of both operands, shared by all tiles of a bit pair.
template <int WB, int AB>
struct Format {
  static constexpr int c_w = (1 << WB) - 1, c_a = (1 << AB) - 1;
  static constexpr int elements = 4 / WB;
  static constexpr bool built = AB * elements > 8;  // tables are built while packing
  static constexpr int max_entry = elements * c_w * c_a, flush = 255 / max_entry, wide_steps = 65535 / max_entry;
  static constexpr int offset_bytes = AB * elements > 4 ? 2 : 1, step_bytes = built ? 16 : offset_bytes;
  // Rows: the codes of all elements of a step; where tables are built, the codes of one element, table after table.
  static constexpr int parts = built ? elements : 1, part_elements = elements / parts;
  static constexpr int part_rows = 1 << (AB * part_elements);

  struct Tables {
    alignas(64) uint8_t row[parts][part_rows][16];
  };
  static constexpr Tables make_tables() {
    Tables tables{};
    for (int part = 0; part < parts; part++)
      for (int code = 0; code < part_rows; code++)
        for (int index = 0; index < 16; index++) {
          int sum = 0;
          for (int e = 0; e < part_elements; e++) {
            const int z_a = 2 * (code >> (e * AB) & c_a) - c_a;
            const int z_w = 2 * (index >> ((part * part_elements + e) * WB) & c_w) - c_w;
            sum += (z_w * z_a + c_w * c_a) / 2;
          }
          tables.row[part][code][index] = static_cast<uint8_t>(sum);
        }
    return tables;
  }
  static constexpr Tables tables = make_tables();

  // The table of one step of a packed row, in both halves.
  static SONIQ_INLINE __m256i table(const uint8_t* row, int64_t step) {
    const uint8_t* entry = row + step * step_bytes;
    if constexpr (!built) {
      const uint8_t* base = &tables.row[0][0][0];
      if constexpr (offset_bytes == 1) entry = base + *entry;
      if constexpr (offset_bytes == 2) entry = base + *reinterpret_cast<const uint16_t*>(entry);
    }
    return _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(entry)));
  }

  static void pack_row(int64_t k, int64_t steps, const uint8_t* codes, uint8_t* out) {
    if constexpr (built)
      for (int64_t s = 0; s < steps; s++) build(codes + s * elements, k - s * elements, out + s * 16);
    else
      for (int64_t s = 0; s < steps; s += 32 / elements, out += 32 / elements * step_bytes)
        store_offsets(load_codes(codes + s * elements, k - s * elements), out);
  }

  static int weight_index(const int8_t* w, int64_t live) {
    int index = 0;
    for (int e = 0; e < elements && e < live; e++) index |= (w[e] + c_w) / 2 << (e * WB);
    return index;
  }

 private:
  static void build(const uint8_t* codes, int64_t live, uint8_t* out) {
    __m128i sum = _mm_setzero_si128();
    for (int e = 0; e < elements; e++) {
      const uint8_t* row = tables.row[e][e < live ? codes[e] : 0];
      sum = _mm_add_epi8(sum, _mm_load_si128(reinterpret_cast<const __m128i*>(row)));
    }
    _mm_store_si128(reinterpret_cast<__m128i*>(out), sum);
  }

  // 32 codes -> 16 * code of each step: neighbours joined by multiplying with powers of two, then by narrowing.
  static SONIQ_INLINE void store_offsets(__m256i codes, uint8_t* out) {
    if constexpr (elements == 2) {
      const __m256i code = _mm256_maddubs_epi16(codes, _mm256_set1_epi16(1 | 1 << (8 + AB)));
      const __m256i words = _mm256_slli_epi16(code, 4);
      if constexpr (offset_bytes == 2) return store(out, words);
      const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out), bytes);
    } else {
      const __m256i pairs = _mm256_maddubs_epi16(codes, _mm256_set1_epi16(1 | 1 << (8 + AB)));
      const __m256i code = _mm256_madd_epi16(pairs, _mm256_set1_epi32(16 | 16 << (16 + 2 * AB)));
      const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(code), _mm256_extracti128_si256(code, 1));
      if constexpr (offset_bytes == 2) _mm_storeu_si128(reinterpret_cast<__m128i*>(out), words);
      if constexpr (offset_bytes == 1) _mm_storel_epi64(reinterpret_cast<__m128i*>(out), _mm_packus_epi16(words, words));
    }
  }
};

// out[0..31] = base + 2 * sum, where base is `bias` the first time and later what out holds.
SONIQ_INLINE void spill(Words all, Words odd, int32_t* out, bool first, int32_t bias) {
  const __m256i even = (__m256i)(all - (odd << 8)), odds = (__m256i)odd;
  const __m128i quarter[4] = {_mm256_castsi256_si128(even), _mm256_extracti128_si256(even, 1), _mm256_castsi256_si128(odds),
                              _mm256_extracti128_si256(odds, 1)};
  for (int q = 0; q < 4; q++) {
    const __m256i sum = _mm256_slli_epi32(_mm256_cvtepu16_epi32(quarter[q]), 1);
    const __m256i base =
        first ? _mm256_set1_epi32(bias) : _mm256_loadu_si256(reinterpret_cast<const __m256i*>(out + q * 8));
    store(out + q * 8, _mm256_add_epi32(base, sum));
  }
}

template <int MR, int NV, class F, bool Dense = false>
struct Shuffle {
  static constexpr int mr = MR, nr = 32 * NV;
  static constexpr int lookups = Dense ? 2 : 1;  // per weight byte
  static constexpr int flush = F::flush / lookups * lookups;
  // Few steps fit a byte: the block is unrolled, and steps are padded to whole blocks.
  static constexpr bool fixed_blocks = flush <= 4;
  static constexpr int group_steps = fixed_blocks ? flush : lookups;

  static int64_t steps(int64_t k) { return ceil_div(k, F::elements * group_steps) * group_steps; }
  // Offsets are stored 32 codes at a time.
  static int64_t a_row_bytes(int64_t k) { return F::built ? steps(k) * 16 : ceil_div(k, 32) * (32 / F::elements) * F::step_bytes; }
  static int64_t w_bytes(int64_t cols, int64_t taps, int64_t k) {
    return ceil_div(cols, nr) * taps * steps(k) / lookups * nr;
  }

  static void pack_a(int64_t rows, int64_t k, const void* codes, int64_t ld_codes, uint8_t* out, int64_t ld_out) {
    for (int64_t r = 0; r < rows; r++)
      F::pack_row(k, steps(k), static_cast<const uint8_t*>(codes) + r * ld_codes, out + r * ld_out);
  }

  static void pack_w(int64_t cols, int64_t taps, int64_t k, const int8_t* w, uint8_t* out) {
    for (int64_t n0 = 0; n0 < cols; n0 += nr)
      for (int64_t t = 0; t < taps; t++)
        for (int64_t s = 0; s < steps(k); s += lookups)
          for (int slot = 0; slot < nr; slot++) {
            const int64_t n = n0 + slot / 32 * 32 + slot % 2 * 16 + slot % 32 / 2;
            int byte = 0;
            for (int64_t i = s; n < cols && i < s + lookups && i * F::elements < k; i++)
              byte |= F::weight_index(w + (n * taps + t) * k + i * F::elements, k - i * F::elements) << (i - s) * 4;
            *out++ = static_cast<uint8_t>(byte);
          }
  }

  static void run(int64_t rows, int64_t cols, int64_t taps, int64_t k, const uint8_t* const* a, int64_t ld_a, const uint8_t* w,
                  void* acc, int64_t ld_acc) {
    int32_t* out = static_cast<int32_t*>(acc);
    for (int64_t n = 0; n < cols; n += nr, w += taps * steps(k) / lookups * nr)
      for_row_blocks<MR>(rows, [&](auto block, int64_t r) {
        tile(block, taps, steps(k), a + r, ld_a, w, out + r * ld_acc + n, ld_acc);
      });
  }

 private:
  template <int R>
  static void tile(Index<R>, int64_t taps, int64_t steps, const uint8_t* const* a, int64_t ld_a, const uint8_t* w, int32_t* out,
                   int64_t ld_out) {
    const int32_t bias = static_cast<int32_t>(-F::max_entry * taps * steps);
    Bytes bytes[R][NV];
    Words all[R][NV], odd[R][NV];
    const uint8_t* row[R];
    int64_t summed = 0;
    bool first = true;
    unroll<R * NV>([&](auto i) SONIQ_INLINE_LAMBDA { all[i / NV][i % NV] = odd[i / NV][i % NV] = Words{}; });
    for (int64_t t = 0; t < taps; t++, a += ld_a) {
      unroll<R>([&](auto r) SONIQ_INLINE_LAMBDA { row[r] = a[r]; });
      for (int64_t s = 0, end; s < steps; s = end) {
        end = fixed_blocks ? s + flush : min64(s + flush, steps);
        unroll<R * NV>([&](auto i) SONIQ_INLINE_LAMBDA { bytes[i / NV][i % NV] = Bytes{}; });
#pragma GCC unroll 1
        for (int64_t i = s; i < end; i += lookups, w += nr) step(row, i, w, bytes);
        unroll<R * NV>([&](auto i) SONIQ_INLINE_LAMBDA {
          all[i / NV][i % NV] += (Words)bytes[i / NV][i % NV];
          odd[i / NV][i % NV] += (Words)bytes[i / NV][i % NV] >> 8;
        });
        summed += end - s;
        if (summed <= F::wide_steps - flush) continue;
        unroll<R * NV>([&](auto i) SONIQ_INLINE_LAMBDA {
          spill(all[i / NV][i % NV], odd[i / NV][i % NV], out + i / NV * ld_out + i % NV * 32, first, bias);
          all[i / NV][i % NV] = odd[i / NV][i % NV] = Words{};
        });
        first = false, summed = 0;
      }
    }
    if (first || summed > 0)
      unroll<R * NV>([&](auto i) SONIQ_INLINE_LAMBDA {
        spill(all[i / NV][i % NV], odd[i / NV][i % NV], out + i / NV * ld_out + i % NV * 32, first, bias);
      });
  }

  // One vector of weight bytes: one lookup each, or two.
  template <int R>
  static SONIQ_INLINE void step(const uint8_t* const (&row)[R], int64_t s, const uint8_t* w, Bytes (&bytes)[R][NV]) {
    __m256i index[lookups][NV];
    unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA {
      index[0][v] = load(w + v * 32);
      if constexpr (Dense) {
        const __m256i low = _mm256_set1_epi8(15);
        index[1][v] = _mm256_and_si256(_mm256_srli_epi16(index[0][v], 4), low);
        index[0][v] = _mm256_and_si256(index[0][v], low);
      }
    });
    unroll<R * lookups>([&](auto i) SONIQ_INLINE_LAMBDA {
      constexpr int r = i / lookups, half = i % lookups;
      const __m256i table = F::table(row[r], s + half);
      unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA { bytes[r][v] += (Bytes)_mm256_shuffle_epi8(table, index[half][v]); });
      SONIQ_ROW_BARRIER();
    });
  }
};

}  // namespace
}  // namespace soniq

SONIQ_KERNEL(gemm_z1_z1_s32_6x64x4__avx2_shuffle, "avx2", 4, 2147483644, soniq::Shuffle<6, 2, soniq::Format<1, 1>>)
SONIQ_KERNEL(gemm_z2_z1_s32_6x64x4__avx2_shuffle, "avx2", 4, 715827880, soniq::Shuffle<6, 2, soniq::Format<1, 2>>)
SONIQ_KERNEL(gemm_z2_z2_s32_6x64x2__avx2_shuffle, "avx2", 2, 238609294, soniq::Shuffle<6, 2, soniq::Format<2, 2>>)
SONIQ_KERNEL(gemm_z4_z1_s32_6x64x16__avx2_shuffle, "avx2", 16, 143165568, soniq::Shuffle<6, 2, soniq::Format<1, 4>>)
SONIQ_KERNEL(gemm_z4_z2_s32_6x64x4__avx2_shuffle, "avx2", 4, 47721856, soniq::Shuffle<6, 2, soniq::Format<2, 4>>)
SONIQ_KERNEL(gemm_z1_z1_s32_1x128x8__avx2_shuffle, "avx2", 8, 2147483640, soniq::Shuffle<1, 4, soniq::Format<1, 1>, true>)
SONIQ_KERNEL(gemm_z2_z1_s32_1x128x8__avx2_shuffle, "avx2", 8, 715827880, soniq::Shuffle<1, 4, soniq::Format<1, 2>, true>)
SONIQ_KERNEL(gemm_z2_z2_s32_1x128x4__avx2_shuffle, "avx2", 4, 238609292, soniq::Shuffle<1, 4, soniq::Format<2, 2>, true>)
SONIQ_KERNEL(gemm_z4_z1_s32_1x128x16__avx2_shuffle, "avx2", 16, 143165568, soniq::Shuffle<1, 4, soniq::Format<1, 4>, true>)
SONIQ_KERNEL(gemm_z4_z2_s32_1x128x4__avx2_shuffle, "avx2", 4, 47721856, soniq::Shuffle<1, 4, soniq::Format<2, 4>, true>)
