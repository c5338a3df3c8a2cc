// W1A1 by GF(2) matrix products (GFNI): counts of AND in bit slices.
//
// Equation. With bits w and u (1 is +1) of K padded elements, raw = sum (2w - 1)(2u - 1) = 4 S - 2 sum w - 2 sum u + K, where
//   S = sum w u. Five elements make a group; x_i = w_i u_i adds up by two full adders: x_0 + x_1 + x_2 = s + 2 c and
//   s + x_3 + x_4 = b + 2 d. Over GF(2) each of b, c, d is a sum of products (feature of w)(the same feature of u):
//     b: the 5 bits;  c: x_0 x_1, x_0 x_2, x_1 x_2;  d: x_3 x_4 and x_i x_j with i in 0..2, j in 3..4 (s is x_0 + x_1 + x_2),
//   where x_i x_j = (w_i w_j)(u_i u_j). A vgf2p8affineqb makes 64 x 8 such sums of up to 8 features each: bit r of byte n is
//   that of row r and output channel n. S is then the sum over groups of b + 2 (c + d), in bit slices: plane p of the counter
//   holds bit p of all 512 counts.
// Exactness. A counter has 12 planes and takes 48 blocks of 80 elements, 3840 < 2^12, before it is added to int32. |raw| <= K
//   must fit int32: K <= 2^31 - 1, rounded down to whole blocks.
// Packing. Activations: a byte per group (bits 0..4), 16 bytes per block of 80 elements; `run` turns 8 rows at a time into the
//   matrices of their features, 32 rows for all columns. Weights: panel = [tap][block][group][2][64] bytes and 64 int32 sums of w; the first of
//   two bytes holds the features of b (bits 0..4) and c (5..7), the other those of d (0..6). Column order: slot_of.
// Ports. Per group and 512 outputs 3 vgf2p8affineqb (matrix broadcast from memory) and 3 full adders of two vpternlogq: 9
//   operations for 2560 MAC; with the upper planes 155 per block where two 512-bit operations start a cycle: 528
//   MAC/cycle. vgf2p8affineqb runs on p0 (Intel from Ice Lake), vpternlogq on p0 and p5. Matrices (40 operations per block
//   and 8 rows) and the move to int32 (half an operation per output) come on top, so it wants many columns and a k of
//   thousands. Live: 12 planes, up to 18 carries.
#include "avx512.h"

namespace soniq {
namespace {

struct Gfni {
  static constexpr int mr = 8, nr = 64;
  static constexpr int64_t block_k = 80, block_bytes = 16, half_k = block_k / 2;
  static constexpr int64_t block_weights = 16 * 2 * 64, block_matrices = 6 * 64;
  static constexpr int planes = 12, strips = 4;     // strips of mr rows share their weights while these are in L1
  static constexpr int64_t deepest = 48, near = 8;  // blocks in a counter, and per visit of a strip

  static int64_t blocks(int64_t k) { return ceil_div(k, block_k); }
  static int64_t panel_bytes(int64_t taps, int64_t k) { return taps * blocks(k) * block_weights + nr * 4; }
  static int64_t a_row_bytes(int64_t k) { return blocks(k) * block_bytes; }
  static int64_t w_bytes(int64_t cols, int64_t taps, int64_t k) { return ceil_div(cols, nr) * panel_bytes(taps, k); }

  static void pack_a(int64_t rows, int64_t k, const void* codes, int64_t ld_codes, uint8_t* out, int64_t ld_out) {
    for (int64_t r = 0; r < rows; r++) {
      const uint8_t* src = static_cast<const uint8_t*>(codes) + r * ld_codes;
      uint64_t* dst = reinterpret_cast<uint64_t*>(out + r * ld_out);
      for (int64_t i = 0; i < 2 * blocks(k); i++) {
        const int64_t left = k - i * half_k;
        const __mmask64 live = left <= 0 ? 0 : (1ull << min64(left, half_k)) - 1;
        const __m512i u = _mm512_maskz_loadu_epi8(live, src + i * half_k);
        *dst++ = _pdep_u64(_mm512_test_epi8_mask(u, _mm512_set1_epi8(1)), 0x1f1f1f1f1f1f1f1f);
      }
    }
  }

  static void pack_w(int64_t cols, int64_t taps, int64_t k, const int8_t* w, uint8_t* out) {
    for (int64_t n0 = 0; n0 < cols; n0 += nr, out += panel_bytes(taps, k)) {
      int32_t* sums = reinterpret_cast<int32_t*>(out + panel_bytes(taps, k) - nr * 4);
      for (int64_t n = 0; n < nr; n++) {
        uint8_t* dst = out + slot_of(n);
        sums[n] = 0;
        for (int64_t t = 0; t < taps; t++)
          for (int64_t i = 0; i < blocks(k) * block_k; i += 5, dst += 128) {
            const uint32_t bits = n0 + n < cols ? group(w + ((n0 + n) * taps + t) * k, i, k) : 0;
            dst[0] = static_cast<uint8_t>(bits | (select(bits, c_first) & select(bits, c_second)));
            dst[64] = static_cast<uint8_t>(select(bits, d_first) & select(bits, d_second));
            sums[n] += __builtin_popcount(bits);
          }
      }
    }
  }

  static void run(int64_t rows, int64_t cols, int64_t taps, int64_t k, const uint8_t* const* a, int64_t ld_a, const uint8_t* w,
                  void* acc, int64_t ld_acc) {
    alignas(64) uint8_t matrices[strips][deepest * block_matrices];
    int32_t sums[strips * mr];
    const int64_t all = taps * blocks(k);
    for (int64_t r = 0; r < rows; r += strips * mr)
      for (int64_t first = 0; first < all; first += deepest) {
        const int64_t height = min64(rows - r, strips * mr), depth = min64(all - first, deepest);
        for (int64_t s = 0; s * mr < height; s++)
          make_matrices(min64(height - s * mr, mr), first, depth, blocks(k), a + r + s * mr, ld_a, matrices[s], sums + s * mr);
        for (int64_t n = 0; n < cols; n += nr)
          panel(height, first, depth, matrices, sums, w + n / nr * panel_bytes(taps, k), all,
                static_cast<int32_t*>(acc) + r * ld_acc + n, ld_acc);
      }
  }

 private:
  // Bits of a group that make the features: bit i of c is bit c_first[i] and bit c_second[i]; 8 stands for 0.
  static constexpr int c_first[8] = {8, 8, 8, 8, 8, 0, 0, 1}, c_second[8] = {8, 8, 8, 8, 8, 1, 2, 2};
  static constexpr int d_first[8] = {3, 0, 1, 2, 0, 1, 2, 8}, d_second[8] = {4, 3, 3, 3, 4, 4, 4, 8};

  static uint32_t select(uint32_t bits, const int (&from)[8]) {
    uint32_t selected = 0;
    for (int i = 0; i < 8; i++) selected |= (bits >> from[i] & 1) << i;
    return selected;
  }

  // The matrix of `select`: byte 7 - i of a GFNI matrix makes bit i.
  static constexpr int64_t selection(const int (&from)[8]) {
    uint64_t matrix = 0;
    for (int i = 0; i < 8; i++)
      if (from[i] < 8) matrix |= 1ull << from[i] << 8 * (7 - i);
    return static_cast<int64_t>(matrix);
  }

  static uint32_t group(const int8_t* w, int64_t first, int64_t k) {
    uint32_t bits = 0;
    for (int64_t i = first; i < min64(first + 5, k); i++) bits |= uint32_t(w[i] > 0) << (i - first);
    return bits;
  }

  // Bytes lie so that unpacking them to int32 within lanes gives columns in order.
  static int64_t slot_of(int64_t n) { return n / 4 % 4 * 16 + n / 16 * 4 + n % 4; }

  // Blocks first .. first + depth of one strip: 8 rows of 16 groups to 16 matrices of b, c and d each; sums of u by row.
  static void make_matrices(int64_t rows, int64_t first, int64_t depth, int64_t blocks_per_tap, const uint8_t* const* a,
                            int64_t ld_a, uint8_t* out, int32_t* sums) {
    alignas(64) uint8_t low_groups[64];
    for (int i = 0; i < 64; i++) low_groups[i] = static_cast<uint8_t>((7 - i % 8) * 16 + i / 8);
    const __m512i low = _mm512_load_si512(low_groups), high = _mm512_add_epi8(low, _mm512_set1_epi8(8));
    __m512i count[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
    const uint8_t* row[mr];
    for (int64_t tap = first / blocks_per_tap, i = first % blocks_per_tap; depth > 0; tap++, i = 0) {
      for (int r = 0; r < mr; r++) row[r] = a[tap * ld_a + (r < rows ? r : 0)];
      const int64_t end = min64(blocks_per_tap, i + depth);
      depth -= end - i;
      for (; i < end; i++, out += block_matrices) {
        const __m512i top = four_rows(row, i * block_bytes), bottom = four_rows(row + 4, i * block_bytes);
        count[0] = _mm512_add_epi64(count[0], _mm512_popcnt_epi64(top));
        count[1] = _mm512_add_epi64(count[1], _mm512_popcnt_epi64(bottom));
        store_features(_mm512_permutex2var_epi8(top, low, bottom), out);
        store_features(_mm512_permutex2var_epi8(top, high, bottom), out + 3 * 64);
      }
    }
    alignas(64) int64_t halves[mr][2];
    _mm512_store_si512(halves, count[0]);
    _mm512_store_si512(halves + 4, count[1]);
    for (int r = 0; r < mr; r++) sums[r] = static_cast<int32_t>(halves[r][0] + halves[r][1]);
  }

  static SONIQ_INLINE __m512i four_rows(const uint8_t* const* row, int64_t offset) {
    __m512i rows = _mm512_setzero_si512();
    unroll<4>([&](auto r) SONIQ_INLINE_LAMBDA {
      rows = _mm512_inserti32x4(rows, _mm_loadu_si128(reinterpret_cast<const __m128i*>(row[r] + offset)), r);
    });
    return rows;
  }

  static SONIQ_INLINE void store_features(__m512i bits, uint8_t* out) {
    const auto pick = [&](int64_t matrix) { return _mm512_gf2p8affine_epi64_epi8(bits, _mm512_set1_epi64(matrix), 0); };
    _mm512_store_si512(out, bits);
    _mm512_store_si512(out + 64, _mm512_and_si512(pick(selection(c_first)), pick(selection(c_second))));
    _mm512_store_si512(out + 128, _mm512_and_si512(pick(selection(d_first)), pick(selection(d_second))));
  }

  static void panel(int64_t height, int64_t first, int64_t depth, const uint8_t (*matrices)[deepest * block_matrices],
                    const int32_t* sums, const uint8_t* w, int64_t all, int32_t* out, int64_t ld_out) {
    __m512i counter[strips][planes];
    for (int64_t s = 0; s * mr < height; s++)
      for (int p = 0; p < planes; p++) counter[s][p] = _mm512_setzero_si512();
    for (int64_t i = 0; i < depth; i += near)
      for (int64_t s = 0; s * mr < height; s++)
        count(min64(near, depth - i), matrices[s] + i * block_matrices, w + (first + i) * block_weights, counter[s]);
    const int32_t* column_sums = reinterpret_cast<const int32_t*>(w + all * block_weights);
    unroll<4>([&](auto q) SONIQ_INLINE_LAMBDA {
      const __m512i twice = _mm512_slli_epi32(_mm512_loadu_si512(column_sums + q * 16), 1);
      const __m512i start = _mm512_sub_epi32(_mm512_setzero_si512(), twice);
      if (first == 0)
        for (int64_t r = 0; r < height; r++) _mm512_storeu_si512(out + r * ld_out + q * 16, start);
    });
    for (int64_t s = 0; s * mr < height; s++)
      unroll<mr>([&](auto r) SONIQ_INLINE_LAMBDA {
        const int64_t row = s * mr + r;
        if (row < height) add_row(r, counter[s], static_cast<int32_t>(depth * block_k) - 2 * sums[row], out + row * ld_out);
      });
  }

  static void count(int64_t depth, const uint8_t* matrices, const uint8_t* w, __m512i* counter) {
    __m512i plane[planes];
    unroll<planes>([&](auto p) SONIQ_INLINE_LAMBDA { plane[p] = counter[p]; });
#pragma GCC unroll 1
    for (int64_t i = 0; i < depth; i++, matrices += block_matrices, w += block_weights) {
      __m512i carry[5];
      add_groups<4, 0>(reinterpret_cast<const int64_t*>(matrices), w, plane, carry);
      const __m512i d0 = full_add(plane[4], carry[0], carry[1]), d1 = full_add(plane[4], carry[2], carry[3]);
      const __m512i d2 = half_add(plane[4], carry[4]);
      const __m512i e0 = full_add(plane[5], d0, d1), e1 = half_add(plane[5], d2);
      __m512i ripple = full_add(plane[6], e0, e1);
      unroll<planes - 7>([&](auto p) SONIQ_INLINE_LAMBDA { ripple = half_add(plane[7 + p], ripple); });
    }
    unroll<planes>([&](auto p) SONIQ_INLINE_LAMBDA { counter[p] = plane[p]; });
  }

  // 2^level groups from `first` on into planes 0 .. level - 1; what is carried out weighs 2^level.
  template <int level, int first>
  static SONIQ_INLINE void add_groups(const int64_t* matrices, const uint8_t* w, __m512i (&plane)[planes],
                                      __m512i (&carry)[5]) {
    if constexpr (level == 1) {
      __m512i even[3], odd[3];
      products<first>(matrices, w, even);
      products<first + 1>(matrices, w, odd);
      carry[0] = full_add(plane[0], even[0], odd[0]);
      carry[1] = even[1], carry[2] = even[2], carry[3] = odd[1], carry[4] = odd[2];
    } else {
      __m512i left[5], right[5];
      add_groups<level - 1, first>(matrices, w, plane, left);
      add_groups<level - 1, first + (1 << (level - 1))>(matrices, w, plane, right);
      unroll<5>([&](auto j) SONIQ_INLINE_LAMBDA { carry[j] = full_add(plane[level - 1], left[j], right[j]); });
    }
  }

  // b, c and d of one group.
  template <int g>
  static SONIQ_INLINE void products(const int64_t* matrices, const uint8_t* w, __m512i (&out)[3]) {
    const __m512i bc = _mm512_load_si512(w + g * 128), d = _mm512_load_si512(w + g * 128 + 64);
    const int64_t* matrix = matrices + g / 8 * 24 + g % 8;
    out[0] = times(bc, matrix), out[1] = times(bc, matrix + 8), out[2] = times(d, matrix + 16);
  }

  // gcc 12 makes a broadcast and a product of the intrinsics; one instruction does both.
  static SONIQ_INLINE __m512i times(__m512i features, const int64_t* matrix) {
#ifdef __GFNI__
    __m512i product;
    asm("vgf2p8affineqb $0, %2%{1to8%}, %1, %0" : "=v"(product) : "v"(features), "m"(*matrix));
    return product;
#else  // built with portable intrinsics
    return _mm512_gf2p8affine_epi64_epi8(features, _mm512_set1_epi64(*matrix), 0);
#endif
  }

  // The carry, maj(old sum, x, y), from the new sum: each vpternlogq then overwrites what is dead, and no copies are needed.
  static SONIQ_INLINE __m512i full_add(__m512i& sum, __m512i x, __m512i y) {
    sum = _mm512_ternarylogic_epi64(sum, x, y, 0x96);
    return _mm512_ternarylogic_epi64(x, sum, y, 0xb2);
  }

  static SONIQ_INLINE __m512i half_add(__m512i& sum, __m512i x) {
    const __m512i carry = _mm512_and_si512(sum, x);
    sum = _mm512_xor_si512(sum, x);
    return carry;
  }

  // out[0..63] += 4 (counts of row r) + offset: bit r of plane p moves to bit p + 2 of 16, which is in the lower byte for the
  // first six planes.
  template <int r>
  static SONIQ_INLINE void add_row(Index<r>, const __m512i* counter, int32_t offset, int32_t* out) {
    static_assert(planes == 12);
    const __m512i low = join<r, 2>(counter), high = join<r, 0>(counter + 6), zero = _mm512_setzero_si512();
    const __m512i half[2] = {_mm512_unpacklo_epi8(low, high), _mm512_unpackhi_epi8(low, high)};
    unroll<4>([&](auto q) SONIQ_INLINE_LAMBDA {
      const __m512i counts = q % 2 ? _mm512_unpackhi_epi16(half[q / 2], zero) : _mm512_unpacklo_epi16(half[q / 2], zero);
      const __m512i before = _mm512_add_epi32(_mm512_loadu_si512(out + q * 16), _mm512_set1_epi32(offset));
      _mm512_storeu_si512(out + q * 16, _mm512_add_epi32(before, counts));
    });
  }

  // Bit r of six planes as bits first .. first + 5 of a byte.
  template <int r, int first>
  static SONIQ_INLINE __m512i join(const __m512i* plane) {
    constexpr int or3 = 0xfe;
    __m512i bit[6];
    unroll<6>([&](auto p) SONIQ_INLINE_LAMBDA {
      const __m512i matrix = _mm512_set1_epi64(static_cast<int64_t>(1ull << r << 8 * (7 - first - p)));
      bit[p] = _mm512_gf2p8affine_epi64_epi8(plane[p], matrix, 0);
    });
    const __m512i four = _mm512_or_si512(_mm512_ternarylogic_epi64(bit[0], bit[1], bit[2], or3), bit[3]);
    return _mm512_ternarylogic_epi64(four, bit[4], bit[5], or3);
  }
};

}  // namespace
}  // namespace soniq

SONIQ_KERNEL(gemm_z1_z1_s32_8x64x80__avx512gfni_gfni, "avx512f,avx512bw,avx512vbmi,avx512vpopcntdq,gfni,bmi2", 80, 2147483600, soniq::Gfni)
