// What the kernels of 64-entry tables share (gemm_table.cpp): the formats and their tables, the packing of activations, and sums.
#pragma once
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

}  // namespace
}  // namespace soniq
