// W1A1, W1A2 and W2A2 by XOR and population count (AVX512_VPOPCNTDQ).
//
// Equation. A zero-free code of b bits is z = sum_p 2^p s_p with planes s_p in {-1,+1} (bit p of the code: 0 is -1). Over a k
//   of K padded elements, sum s_q s_p = K - 2 popcount(w_q xor a_p), hence
//     raw = c_w c_a K - 2 sum_q sum_p 2^(q + p) popcount(w_q xor a_p),  c = 2^b - 1;
//   pairs of planes with the same q + p share a counter.
// Exactness. Counts stay below 2^32 in lanes of 32 or 64 bits; |raw| <= c_w c_a K must fit int32: K <= (2^31 - 1) / (c_w c_a),
//   rounded down to whole words.
// Packing. Activations: 64 or 32 elements to a word, element i at bit i; row = [k / word][plane] words. Weights: panel =
//   [tap][k / word][plane][nr] words. 64-bit words: a vector is the 8 even or the 8 odd of 16 output channels at one k-group;
//   32-bit words: 16 channels in order. What follows the k elements of a tap in its last word is masked: pixels of one plane lie
//   side by side, whatever their number of channels.
// Ports. Per vector and pair of planes one vpxor (the activation word broadcast), one vpopcnt, one vpadd: 512 products of bits
//   in 3 operations, 1.5 cycles where two 512-bit operations start a cycle and one of them may be a vpopcnt: 341 MAC/cycle
//   (Zen 4: any two pipes, one with vpopcnt; Intel from Ice Lake: p0 and p5, vpopcnt on p5), W1A2 171, W2A2 85. The one
//   dependence carried around the loop is the addition to each counter, one cycle (W2A2: two for the shared one). Tile 6 x 4
//   vectors: 24 counters, 4 weights, a word, 3 temporaries = 32 registers; 10 loads for 36 cycles. 32-bit words cost the same
//   and halve both the columns of a vector's pair and the group of k: what narrow layers want, for which the one-vector tiles
//   are (W1A1 12 x 1: 13 loads for 18 cycles). The one-row tile streams its weights and is bound by the cache level they come
//   from.
#include "avx512.h"

namespace soniq {
namespace {

constexpr int kXorAnd = 0x28;  // (a ^ b) & c

// What differs between words of 64 and of 32 bits: the vector of counters, and which channel lies where.
struct Lanes64 {
  using Word = uint64_t;
  using Vector = ULongs;

  // Even channels of 16 in one vector, odd ones in the next: their counts then merge into 16 int32 by a shift and an or.
  static int channel_of(int slot) { return slot / 16 * 16 + slot % 8 * 2 + slot / 8 % 2; }
  static SONIQ_INLINE Vector broadcast(Word word) { return (Vector)_mm512_set1_epi64(static_cast<int64_t>(word)); }
  static SONIQ_INLINE Vector differing(Vector a, Vector b, Vector among) {
    return (Vector)_mm512_ternarylogic_epi64((__m512i)a, (__m512i)b, (__m512i)among, kXorAnd);
  }
  static SONIQ_INLINE Vector ones(Vector bits) { return (Vector)_mm512_popcnt_epi64((__m512i)bits); }
  template <int NV, int counters>
  static SONIQ_INLINE UInts counts(const Vector (&count)[NV][counters], int q, int s) {
    return (UInts)(count[2 * q][s] | count[2 * q + 1][s] << 32);
  }
};

struct Lanes32 {
  using Word = uint32_t;
  using Vector = UInts;

  static int channel_of(int slot) { return slot; }
  static SONIQ_INLINE Vector broadcast(Word word) { return (Vector)_mm512_set1_epi32(static_cast<int32_t>(word)); }
  static SONIQ_INLINE Vector differing(Vector a, Vector b, Vector among) {
    return (Vector)_mm512_ternarylogic_epi32((__m512i)a, (__m512i)b, (__m512i)among, kXorAnd);
  }
  static SONIQ_INLINE Vector ones(Vector bits) { return (Vector)_mm512_popcnt_epi32((__m512i)bits); }
  template <int NV, int counters>
  static SONIQ_INLINE UInts counts(const Vector (&count)[NV][counters], int q, int s) { return count[q][s]; }
};

// WP planes of weights, AP of activations.
template <int MR, int NV, int WP, int AP, class Lanes>
struct Popcount {
  using Word = typename Lanes::Word;
  using Vector = typename Lanes::Vector;
  static constexpr int mr = MR, nr = NV * 64 / int(sizeof(Word)), counters = WP + AP - 1;
  static constexpr int64_t word_bits = 8 * sizeof(Word), c_w = (1 << WP) - 1, c_a = (1 << AP) - 1;

  static int64_t words(int64_t k) { return ceil_div(k, word_bits); }
  static int64_t a_row_bytes(int64_t k) { return words(k) * AP * int64_t(sizeof(Word)); }
  static int64_t panel_bytes(int64_t taps, int64_t k) { return taps * words(k) * WP * NV * 64; }
  static int64_t w_bytes(int64_t cols, int64_t taps, int64_t k) { return ceil_div(cols, nr) * panel_bytes(taps, k); }

  static void pack_a(int64_t rows, int64_t k, const void* codes, int64_t ld_codes, uint8_t* out, int64_t ld_out) {
    for (int64_t r = 0; r < rows; r++) {
      const uint8_t* src = static_cast<const uint8_t*>(codes) + r * ld_codes;
      Word* dst = reinterpret_cast<Word*>(out + r * ld_out);
      for (int64_t i = 0; i < k; i += 64) {
        const __mmask64 live = k - i >= 64 ? ~0ull : (1ull << (k - i)) - 1;
        const __m512i u = _mm512_maskz_loadu_epi8(live, src + i);
        uint64_t plane[AP];
        for (int p = 0; p < AP; p++) plane[p] = _mm512_test_epi8_mask(u, _mm512_set1_epi8(1 << p));
        if (AP == 1 && k - i > word_bits) {  // both halves
          __builtin_memcpy(dst, plane, 8);
          dst += 64 / word_bits;
          continue;
        }
        for (int64_t bit = 0; bit < min64(64, k - i); bit += word_bits)
          for (int p = 0; p < AP; p++) *dst++ = static_cast<Word>(plane[p] >> bit);
      }
    }
  }

  static void pack_w(int64_t cols, int64_t taps, int64_t k, const int8_t* w, uint8_t* out) {
    Word* dst = reinterpret_cast<Word*>(out);
    for (int64_t n0 = 0; n0 < cols; n0 += nr)
      for (int64_t t = 0; t < taps; t++)
        for (int64_t i = 0; i < k; i += word_bits)
          for (int p = 0; p < WP; p++)
            for (int slot = 0; slot < nr; slot++) {
              const int64_t n = n0 + Lanes::channel_of(slot);
              *dst++ = n < cols ? word(w + (n * taps + t) * k, i, k, p) : 0;
            }
  }

  static void run(int64_t rows, int64_t cols, int64_t taps, int64_t k, const uint8_t* const* a, int64_t ld_a, const uint8_t* w,
                  void* acc, int64_t ld_acc) {
    int32_t* out = static_cast<int32_t*>(acc);
    for (int64_t n = 0; n < cols; n += nr, w += panel_bytes(taps, k))
      for_row_blocks<MR>(rows, [&](auto block, int64_t r) {
        tile(block, taps, k, a + r, ld_a, w, out + r * ld_acc + n, ld_acc);
      });
  }

 private:
  static Word word(const int8_t* w, int64_t first, int64_t k, int plane) {
    Word bits = 0;
    for (int64_t i = first; i < min64(first + word_bits, k); i++)
      bits |= static_cast<Word>((w[i] + c_w) / 2 >> plane & 1) << (i - first);
    return bits;
  }

  template <int R>
  static void tile(Index<R>, int64_t taps, int64_t k, const uint8_t* const* a, int64_t ld_a, const uint8_t* w, int32_t* out,
                   int64_t ld_out) {
    Vector count[R][NV][counters], weight[WP][NV];
    const uint8_t* row[R];
    const int64_t whole = k / word_bits, rest = k % word_bits;
    const Vector among = Lanes::broadcast((Word(1) << rest) - 1);
    unroll<R * NV * counters>([&](auto i) SONIQ_INLINE_LAMBDA { (&count[0][0][0])[i] = Vector{}; });
    const auto word = [&](int64_t i, auto is_rest) SONIQ_INLINE_LAMBDA {
      if constexpr (R == 1) prefetch_stream<WP * NV>(w);
      unroll<WP * NV>([&](auto v) SONIQ_INLINE_LAMBDA { weight[v / NV][v % NV] = *reinterpret_cast<const Vector*>(w + v * 64); });
      unroll<R * AP>([&](auto rp) SONIQ_INLINE_LAMBDA {
        constexpr int r = rp / AP, p = rp % AP;
        Word bits;
        __builtin_memcpy(&bits, row[r] + (i * AP + p) * int64_t(sizeof(Word)), sizeof(Word));
        const Vector x = Lanes::broadcast(bits);
        unroll<WP * NV>([&](auto qv) SONIQ_INLINE_LAMBDA {
          constexpr int q = qv / NV, v = qv % NV;
          count[r][v][q + p] += Lanes::ones(is_rest ? Lanes::differing(weight[q][v], x, among) : weight[q][v] ^ x);
        });
        SONIQ_ROW_BARRIER();
      });
      w += WP * NV * 64;
    };
    for (int64_t t = 0; t < taps; t++, a += ld_a) {
      unroll<R>([&](auto r) SONIQ_INLINE_LAMBDA { row[r] = a[r]; });
#pragma GCC unroll 1
      for (int64_t i = 0; i < whole; i++) word(i, Index<0>{});
      if (rest > 0) word(whole, Index<1>{});
    }
    const UInts bias = (UInts)_mm512_set1_epi32(static_cast<int32_t>(c_w * c_a * taps * words(k) * word_bits));
    unroll<R * nr / 16>([&](auto rq) SONIQ_INLINE_LAMBDA {
      constexpr int r = rq / (nr / 16), q = rq % (nr / 16);
      UInts raw = bias;
      unroll<counters>([&](auto s) SONIQ_INLINE_LAMBDA { raw -= Lanes::counts(count[r], q, s) << (s + 1); });
      _mm512_storeu_si512(out + r * ld_out + q * 16, (__m512i)raw);
    });
  }
};

}  // namespace
}  // namespace soniq

SONIQ_KERNEL(gemm_z1_z1_s32_6x32x64__avx512vpopcntdq_popcount, "avx512f,avx512bw,avx512vpopcntdq", 64, 2147483584, soniq::Popcount<6, 4, 1, 1, soniq::Lanes64>)
SONIQ_KERNEL(gemm_z1_z1_s32_12x16x64__avx512vpopcntdq_popcount, "avx512f,avx512bw,avx512vpopcntdq", 64, 2147483584, soniq::Popcount<12, 2, 1, 1, soniq::Lanes64>)
SONIQ_KERNEL(gemm_z1_z1_s32_1x64x64__avx512vpopcntdq_popcount, "avx512f,avx512bw,avx512vpopcntdq", 64, 2147483584, soniq::Popcount<1, 8, 1, 1, soniq::Lanes64>)
SONIQ_KERNEL(gemm_z1_z1_s32_6x64x32__avx512vpopcntdq_popcount, "avx512f,avx512bw,avx512vpopcntdq", 32, 2147483616, soniq::Popcount<6, 4, 1, 1, soniq::Lanes32>)
SONIQ_KERNEL(gemm_z1_z1_s32_12x16x32__avx512vpopcntdq_popcount, "avx512f,avx512bw,avx512vpopcntdq", 32, 2147483616, soniq::Popcount<12, 1, 1, 1, soniq::Lanes32>)
SONIQ_KERNEL(gemm_z2_z1_s32_3x32x64__avx512vpopcntdq_popcount, "avx512f,avx512bw,avx512vpopcntdq", 64, 715827840, soniq::Popcount<3, 4, 1, 2, soniq::Lanes64>)
SONIQ_KERNEL(gemm_z2_z1_s32_1x64x64__avx512vpopcntdq_popcount, "avx512f,avx512bw,avx512vpopcntdq", 64, 715827840, soniq::Popcount<1, 8, 1, 2, soniq::Lanes64>)
SONIQ_KERNEL(gemm_z2_z1_s32_12x16x32__avx512vpopcntdq_popcount, "avx512f,avx512bw,avx512vpopcntdq", 32, 715827872, soniq::Popcount<12, 1, 1, 2, soniq::Lanes32>)
SONIQ_KERNEL(gemm_z2_z2_s32_8x16x32__avx512vpopcntdq_popcount, "avx512f,avx512bw,avx512vpopcntdq", 32, 238609280, soniq::Popcount<8, 1, 2, 2, soniq::Lanes32>)
