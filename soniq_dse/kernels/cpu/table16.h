// Matrix products of 1- and 2-bit weights by 16-entry tables in a register; `Isa` gives the vectors and the lookup.
//
// Equation. A step takes the G = 4 / weight_bits elements whose weight codes fill 4 bits. For the activations of those elements
// a table T of 16 bytes holds, for every possible weight index x,
//   T[x] = sum_e (z_w(x, e) z_a(e) + c_w c_a) / 2   in 0..M,  M = G c_w c_a,
// an integer since all z are odd. One lookup serves an output channel per byte of a vector, and
//   raw = 2 sum_steps T[x] - M steps.
// Where the activations of a step fill at most 8 bits, T is a row of one constant table: activations are packed as row offsets.
// Where they do not (W1A4), pack_a builds T itself.
// Exactness. Bytes hold FLUSH = floor(255 / M) steps. They are then added to 16-bit sums, once whole (`all`, modulo 2^16: even
// bytes + 256 odd bytes) and once shifted right by 8 (`odd`), so even = all - 256 odd; these hold floor(65535 / M) steps, after
// which they go to int32. k_max = floor((2^31 - 1) / (c_w c_a)), rounded down to whole groups.
//   W1A1: M 4, FLUSH 63 (62 where dense) · W1A2: 12, 21 (20) · W2A2: 18, 14 · W1A4: 60, 4 · W2A4: 90, 2
// Packing. Weights: panel = [tap][step][nr] bytes, one index each, element e of the step at bits e * weight_bits; the L bytes of a
//   vector are L channels, even bytes the first half of them. Dense (one-row tiles, bound by the cache level of their weights):
//   two steps a byte, the even one in the low nibble. Activations: 16 * code per step, a u8 (W1A2, W2A4: u16); or the table.
//
// Isa: lanes; Bytes, Words (its vectors as u8 and u16); load(p); low(index), high(index) (nibbles); table(p) (16 bytes, wherever
// the lookup wants them); lookup(table, index); store_offsets<G, AB>(codes, live, out) (32 codes);
// store_blocks<G, AB>(codes, k, out) (as many as it likes, a multiple of 32; returns how many); add_twice(sums, out, first,
// bias): lanes / 2 sums, doubled, onto `bias` the first time and later onto what out holds.
#pragma once
#include "tile.h"

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

  // The table of one step of a packed row.
  static SONIQ_INLINE const uint8_t* table(const uint8_t* row, int64_t step) {
    const uint8_t* entry = row + step * step_bytes;
    if constexpr (built) return entry;
    if constexpr (offset_bytes == 2) return &tables.row[0][0][0] + *reinterpret_cast<const uint16_t*>(entry);
    return &tables.row[0][0][0] + *entry;
  }

  template <class Isa>
  static void pack_row(int64_t k, int64_t steps, const uint8_t* codes, uint8_t* out) {
    if constexpr (built) {
      const int64_t whole = k / elements;
      for (int64_t s = 0; s < whole; s++) build(codes + s * elements, out + s * 16);
      for (int64_t s = whole; s < steps; s++) {
        uint8_t rest[elements] = {};
        for (int64_t i = s * elements; i < k; i++) rest[i - s * elements] = codes[i];
        build(rest, out + s * 16);
      }
    } else {
      for (int64_t i = Isa::template store_blocks<elements, AB>(codes, k, out); i < k; i += 32)
        Isa::template store_offsets<elements, AB>(codes + i, k - i, out + i / elements * step_bytes);
    }
  }

  static int weight_index(const int8_t* w, int64_t live) {
    int index = 0;
    for (int e = 0; e < elements && e < live; e++) index |= (w[e] + c_w) / 2 << (e * WB);
    return index;
  }

 private:
  static SONIQ_INLINE void build(const uint8_t* codes, uint8_t* out) {
    typedef uint8_t Row __attribute__((vector_size(16)));
    Row sum = *reinterpret_cast<const Row*>(tables.row[0][codes[0]]);
    for (int e = 1; e < elements; e++) sum += *reinterpret_cast<const Row*>(tables.row[e][codes[e]]);
    *reinterpret_cast<Row*>(out) = sum;
  }
};

template <class Isa, int MR, int NV, class F, bool Dense = false>
struct Table16 {
  using Bytes = typename Isa::Bytes;
  using Words = typename Isa::Words;
  static constexpr int lanes = Isa::lanes, mr = MR, nr = lanes * NV;
  static_assert(MR == 1 || !Dense, "unpacking is for weights that are read once");
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
      F::template pack_row<Isa>(k, steps(k), static_cast<const uint8_t*>(codes) + r * ld_codes, out + r * ld_out);
  }

  static void pack_w(int64_t cols, int64_t taps, int64_t k, const int8_t* w, uint8_t* out) {
    for (int64_t n0 = 0; n0 < cols; n0 += nr)
      for (int64_t t = 0; t < taps; t++)
        for (int64_t s = 0; s < steps(k); s += lookups)
          for (int slot = 0; slot < nr; slot++) {
            const int64_t n = n0 + slot / lanes * lanes + slot % 2 * (lanes / 2) + slot % lanes / 2;
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
    // Escaped, so that the barriers of long blocks keep these sums in L1: in registers they would crowd out the byte sums.
    if constexpr (Dense && !fixed_blocks) asm volatile("" ::"r"(all), "r"(odd) : "memory");
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
          spill(all[i / NV][i % NV], odd[i / NV][i % NV], out + i / NV * ld_out + i % NV * lanes, first, bias);
          all[i / NV][i % NV] = odd[i / NV][i % NV] = Words{};
        });
        first = false, summed = 0;
      }
    }
    if (first || summed > 0)
      unroll<R * NV>([&](auto i) SONIQ_INLINE_LAMBDA {
        spill(all[i / NV][i % NV], odd[i / NV][i % NV], out + i / NV * ld_out + i % NV * lanes, first, bias);
      });
  }

  template <int R>
  static SONIQ_INLINE void step(const uint8_t* const (&row)[R], int64_t s, const uint8_t* w, Bytes (&bytes)[R][NV]) {
    if constexpr (Dense) return dense_step(row[0], s, w, bytes[0]);
    Bytes index[NV];
    unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA { index[v] = Isa::load(w + v * lanes); });
    unroll<R>([&](auto r) SONIQ_INLINE_LAMBDA {
      const Bytes table = Isa::table(F::table(row[r], s));
      unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA { bytes[r][v] += Isa::lookup(table, index[v]); });
      SONIQ_ROW_BARRIER();
    });
  }

  static SONIQ_INLINE void dense_step(const uint8_t* row, int64_t s, const uint8_t* w, Bytes (&bytes)[NV]) {
    const Bytes even = Isa::table(F::table(row, s)), odd = Isa::table(F::table(row, s + 1));
    unroll<NV>([&](auto v) SONIQ_INLINE_LAMBDA {
      const Bytes indices = Isa::load(w + v * lanes);
      bytes[v] += Isa::lookup(even, Isa::low(indices)) + Isa::lookup(odd, Isa::high(indices));
      SONIQ_ROW_BARRIER();
    });
  }

  // Bytes are channels: the even ones the first half of `lanes`, the odd ones the second.
  static SONIQ_INLINE void spill(Words all, Words odd, int32_t* out, bool first, int32_t bias) {
    Isa::add_twice(all - (odd << 8), out, first, bias);
    Isa::add_twice(odd, out + lanes / 2, first, bias);
  }
};

}  // namespace
}  // namespace soniq
