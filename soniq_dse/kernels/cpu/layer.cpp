// See layer.h. Plain loops over contiguous channels, which the compiler vectorises for the host; the epilogue by hand for AVX2 and
// AVX-512: compilers narrow 32-bit integers to bytes by masks and moves, and load what all rows share once a row.
#include "layer.h"

#if defined(__AVX2__)
#include <immintrin.h>
// gcc 12 takes the deliberately undefined operands inside its own intrinsics for mistakes of ours.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#define SONIQ_INLINE inline __attribute__((always_inline))
#define SONIQ_INLINE_LAMBDA __attribute__((always_inline))

// None of the arrays of a loop overlap: with so many of them, compilers give up checking that at run time.
#if defined(__clang__)
#define SONIQ_NO_ALIAS _Pragma("clang loop vectorize(assume_safety)")
#else
#define SONIQ_NO_ALIAS _Pragma("GCC ivdep")
#endif

namespace {

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// Copies n bytes and up to 31 more, a vector at a time: a short copy of unknown length would be a call. What is written past n
// is written again by the next copy, or lies behind the buffer, as what is read past n does (guard bytes).
inline void copy(uint8_t* to, const uint8_t* from, int64_t n) {
  for (int64_t i = 0; i < n; i += 32) __builtin_memcpy(to + i, from + i, 32);
}

void pack_pixels(const SoniqPack& p, const uint8_t* codes, uint8_t* out) {
  if (p.kernel != nullptr) return p.kernel->pack_a(p.width, p.k, codes, p.ld_codes, out, p.pixel_bytes);
  if (p.by_strip) {
    __builtin_memcpy(out, codes, p.width * p.k);
  } else if (p.channels == nullptr) {
    for (int64_t x = 0; x < p.width; ++x) __builtin_memcpy(out + x * p.pixel_bytes, codes + x * p.ld_codes, p.k);
  } else {
    for (int64_t x = 0; x < p.width; ++x, out += p.pixel_bytes, codes += p.ld_codes)
      for (int64_t c = 0; c < p.k; ++c) out[c] = codes[p.channels[c]];
  }
}

void pad(const SoniqPack& p, uint8_t* out, int64_t pixels) {
  for (int64_t x = 0; x < pixels; ++x) __builtin_memcpy(out + x * p.pixel_bytes, p.pad_pixel, p.pixel_bytes);
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }  // a > -b

// Pointers to `count` pixels of a bare row, stride_width apart from pixel x on; outside of the row, to the pad pixel.
void point_bare(const SoniqLayer& layer, const SoniqPart& part, const uint8_t* row, int64_t x, int64_t count, const uint8_t** out) {
  const int64_t stride = layer.stride_width, step = stride * part.pixel_bytes;
  const int64_t begin = x < 0 ? smaller(ceil_div(-x, stride), count) : 0;
  const int64_t end = x < layer.width ? smaller(ceil_div(layer.width - x, stride), count) : 0;
  const uint8_t* at = row + x * part.pixel_bytes;
  for (int64_t i = 0; i < begin; ++i) out[i] = part.pad_pixel;
  for (int64_t i = begin; i < end; ++i) out[i] = at + i * step;
  for (int64_t i = larger(begin, end); i < count; ++i) out[i] = part.pad_pixel;
}

// Pointers `step` bytes apart; short rows are many, and what compilers make of the plain loop sets out for long ones.
SONIQ_INLINE void point_spaced(const uint8_t* at, int64_t step, int64_t count, const uint8_t** out) {
  typedef int64_t Addresses __attribute__((vector_size(64)));
  int64_t i = 0;
  for (Addresses eight = reinterpret_cast<int64_t>(at) + Addresses{0, 1, 2, 3, 4, 5, 6, 7} * step; i + 8 <= count; i += 8, eight += 8 * step)
    __builtin_memcpy(out + i, &eight, sizeof eight);
  for (; i < count; ++i) out[i] = at + i * step;
}

// Pointers to what each tap of n output rows from row `first` reads: [taps][block_rows].
void point(const SoniqLayer& layer, const SoniqPart& part, int64_t first, int64_t n, const uint8_t** pointers) {
  const int64_t step = layer.stride_width * part.pixel_bytes, dilation = layer.dilation_width;
  for (int64_t r = 0, count; r < n; r += count) {  // rows of one image row
    const int64_t image_row = (first + r) / layer.out_width, x = (first + r) % layer.out_width;
    const int64_t image = image_row / layer.out_height, y = image_row % layer.out_height * layer.stride_height - layer.pad_height;
    count = smaller(layer.out_width - x, n - r);
    const uint8_t** out = pointers + r;
    for (int64_t ky = 0; ky < layer.kernel_height; ++ky) {
      const int64_t row = y + ky * layer.dilation_height;
      const bool inside = row >= 0 && row < layer.height;
      const uint8_t* strip = part.image + (inside ? image * layer.height + row : layer.n_strips) * part.ld_image;
      for (int64_t kx = 0; kx < part.taps_per_row; ++kx, out += layer.block_rows) {
        if (part.pad_pixel != nullptr) {
          const int64_t from = x * layer.stride_width + kx * dilation - layer.pad_width;
          point_bare(layer, part, strip, inside ? from : layer.width, count, out);
        } else {
          point_spaced(strip + (part.first_pixel + kx * dilation) * part.pixel_bytes + x * step, step, count, out);
        }
      }
    }
  }
}

// Codes of all taps of n output rows side by side, then packed; `pointers` lead to their taps, and then to the packed rows.
void fold(const SoniqLayer& layer, const SoniqPart& part, int64_t n, const uint8_t** pointers, uint8_t* codes, uint8_t* rows) {
  const int64_t taps = layer.kernel_height * part.taps_per_row, row_codes = taps * part.run_codes;
  uint8_t* out = codes;
  for (int64_t r = 0; r < n; ++r)
    for (int64_t t = 0; t < taps; ++t, out += part.run_codes) copy(out, pointers[t * layer.block_rows + r], part.run_codes);
  part.kernel->pack_a(n, row_codes, codes, row_codes, rows, part.ld_folded);
  for (int64_t r = 0; r < n; ++r) pointers[r] = rows + r * part.ld_folded;
}

// Where a pass over a block works: n rows of `cols` columns.
struct Block {
  int64_t n, cols;
  const int32_t* raw;
  int64_t ld_raw;
  float *tile, *out;  // t so far and t in the end; ld: the layer's cols, as for residual and the vectors of codes
  int64_t ld;
  const float *bias, *residual;
  bool keeps;  // t, beside the codes
  const SoniqCodesOut* codes;  // at the block's first row and first column
};

enum Finish { kNothing, kBias, kRelu, kAdd, kReluAdd, kAddRelu, kReluAddRelu };
enum Emit { kNoCodes, kCodes, kRectified };  // see SoniqCodesOut

// One row of a block: every array from its first column on.
struct Row {
  const int32_t *raw, *offset;
  int32_t left, right;
  const float* tile;
  float* out;
  const float *scale, *bias, *residual, *inverse, *shift, *lo, *hi;
};

// What a pass needs of numbers, one at a time (compilers vectorise loops over them) or a vector of them.
inline float load(const float* from, float) { return *from; }
inline int32_t load(const int32_t* from, int32_t) { return *from; }
inline float larger_of(float a, float b) { return a > b ? a : b; }
inline float smaller_of(float a, float b) { return a < b ? a : b; }
SONIQ_INLINE float sum_of(const Row& row, int32_t raw, int32_t offset, bool plain) {
  const uint32_t sum = (static_cast<uint32_t>(raw) << (plain ? 0 : row.left)) + static_cast<uint32_t>(offset);
  return static_cast<float>(static_cast<int32_t>(sum) >> (plain ? 0 : row.right));
}

#if defined(__AVX512BW__)
#define SONIQ_LANES 16
typedef __m512 Lanes;
typedef __m512i Integers;

typedef __mmask16 Mask;

inline Lanes load(const float* from, Lanes) { return _mm512_loadu_ps(from); }
inline Integers load(const int32_t* from, Integers) { return _mm512_loadu_si512(from); }
inline void store(float* to, Lanes v) { _mm512_storeu_ps(to, v); }
inline Mask mask_of(int64_t live) { return static_cast<Mask>((1u << live) - 1); }
inline Lanes load_some(const float* from, Mask mask, Lanes) { return _mm512_maskz_loadu_ps(mask, from); }
inline Integers load_some(const int32_t* from, Mask mask, Integers) { return _mm512_maskz_loadu_epi32(mask, from); }
inline void store_some(float* to, Mask mask, Lanes v) { _mm512_mask_storeu_ps(to, mask, v); }
inline Lanes all_of(float value) { return _mm512_set1_ps(value); }
inline Lanes larger_of(Lanes a, Lanes b) { return _mm512_max_ps(a, b); }
inline Lanes smaller_of(Lanes a, Lanes b) { return _mm512_min_ps(a, b); }
SONIQ_INLINE Lanes sum_of(const Row& row, Integers raw, Integers offset, bool plain) {
  if (plain) return _mm512_cvtepi32_ps(_mm512_add_epi32(raw, offset));
  const Integers sum = _mm512_add_epi32(_mm512_sll_epi32(raw, _mm_cvtsi32_si128(row.left)), offset);
  return _mm512_cvtepi32_ps(_mm512_sra_epi32(sum, _mm_cvtsi32_si128(row.right)));
}

// Rounded to codes: packing saturates at 0 and 255.
inline Integers codes_of(const Lanes (&v)[4]) {
  const Integers low = _mm512_packs_epi32(_mm512_cvtps_epi32(v[0]), _mm512_cvtps_epi32(v[1]));
  const Integers high = _mm512_packs_epi32(_mm512_cvtps_epi32(v[2]), _mm512_cvtps_epi32(v[3]));
  const Integers order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);  // packing goes by 128-bit lanes
  return _mm512_permutexvar_epi32(order, _mm512_packus_epi16(low, high));
}
inline void store_codes(const Lanes (&v)[4], uint8_t* out) { _mm512_storeu_si512(out, codes_of(v)); }
inline void store_some_codes(const Lanes (&v)[4], uint8_t* out, int64_t live) { _mm512_mask_storeu_epi8(out, (1ull << live) - 1, codes_of(v)); }
#elif defined(__AVX2__)
#define SONIQ_LANES 8
typedef __m256 Lanes;
typedef __m256i Integers;

typedef __m256i Mask;

inline Lanes load(const float* from, Lanes) { return _mm256_loadu_ps(from); }
inline Integers load(const int32_t* from, Integers) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }
inline void store(float* to, Lanes v) { _mm256_storeu_ps(to, v); }
inline Mask mask_of(int64_t live) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int32_t>(live)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline Lanes load_some(const float* from, Mask mask, Lanes) { return _mm256_maskload_ps(from, mask); }
inline Integers load_some(const int32_t* from, Mask mask, Integers) { return _mm256_maskload_epi32(from, mask); }
inline void store_some(float* to, Mask mask, Lanes v) { _mm256_maskstore_ps(to, mask, v); }
inline Lanes all_of(float value) { return _mm256_set1_ps(value); }
inline Lanes larger_of(Lanes a, Lanes b) { return _mm256_max_ps(a, b); }
inline Lanes smaller_of(Lanes a, Lanes b) { return _mm256_min_ps(a, b); }
SONIQ_INLINE Lanes sum_of(const Row& row, Integers raw, Integers offset, bool plain) {
  if (plain) return _mm256_cvtepi32_ps(_mm256_add_epi32(raw, offset));
  const Integers sum = _mm256_add_epi32(_mm256_sll_epi32(raw, _mm_cvtsi32_si128(row.left)), offset);
  return _mm256_cvtepi32_ps(_mm256_sra_epi32(sum, _mm_cvtsi32_si128(row.right)));
}

// Rounded to codes: packing saturates at 0 and 255.
inline Integers codes_of(const Lanes (&v)[4]) {
  const Integers low = _mm256_packs_epi32(_mm256_cvtps_epi32(v[0]), _mm256_cvtps_epi32(v[1]));
  const Integers high = _mm256_packs_epi32(_mm256_cvtps_epi32(v[2]), _mm256_cvtps_epi32(v[3]));
  const Integers order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);  // packing goes by 128-bit lanes
  return _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), order);
}
inline void store_codes(const Lanes (&v)[4], uint8_t* out) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), codes_of(v)); }
inline void store_some_codes(const Lanes (&v)[4], uint8_t* out, int64_t live) {
  const Integers codes = codes_of(v);
  __builtin_memcpy(out, &codes, live);
}
#endif

// How numbers are read: as many as there are, or those of a mask, beyond which nothing is touched.
struct All {
  template <class F, class V>
  SONIQ_INLINE V operator()(const F* from, V like) const { return load(from, like); }
};
#ifdef SONIQ_LANES
struct Some {
  Mask mask;
  template <class F, class V>
  SONIQ_INLINE V operator()(const F* from, V like) const { return load_some(from, mask, like); }
};
#endif

// What all rows share of a column, and of a vector of them.
struct Terms {
  int32_t offset;
  float scale, bias;
};
#ifdef SONIQ_LANES
struct WideTerms {
  Integers offset;
  Lanes scale, bias;
};
#endif

// t = t + f32(((raw << left) + offset) >> right) * scale; the sums may wrap, their final value fits. The pass over the last
// part of its columns goes on to bias, relu, residual and codes, while t is in a register. The first part leaves out 0 +,
// which could only change the sign of a zero; t itself is kept where something reads it.
template <bool First, bool Plain, Finish How, class T, class Load>
SONIQ_INLINE auto value(const Row& row, int64_t i, const T& terms, const Load& load) {
  const auto zero = decltype(terms.scale){};
  auto t = sum_of(row, load(row.raw + i, terms.offset), terms.offset, Plain) * terms.scale;
  if (!First) t = load(row.tile + i, zero) + t;
  if (How != kNothing) t = t + terms.bias;
  if (How == kRelu || How == kReluAdd || How == kReluAddRelu) t = larger_of(t, zero);
  if (How >= kAdd) t = t + load(row.residual + i, zero);
  if (How == kAddRelu || How == kReluAddRelu) t = larger_of(t, zero);
  return t;
}

// The code before it is rounded (layer.h).
template <class V, Emit Codes, class Load>
SONIQ_INLINE V unrounded(const Row& row, int64_t i, V t, const Load& load) {
  V v = t * load(row.inverse + i, t);
  if (Codes == kRectified) return smaller_of(larger_of(v, V{}), load(row.hi + i, t));
  v = v + load(row.shift + i, t);
  return smaller_of(larger_of(v, load(row.lo + i, t)), load(row.hi + i, t));
}

SONIQ_INLINE Row row_of(const SoniqPart& part, const Block& block, const SoniqCodesOut& out, int64_t r) {
  return {block.raw + r * block.ld_raw, part.offset, part.left, part.right, block.tile + r * block.ld, block.out + r * block.ld, part.scale, block.bias,
          block.residual == nullptr ? nullptr : block.residual + r * block.ld, out.inverse, out.shift, out.lo, out.hi};
}

#ifdef SONIQ_LANES
// Four vectors of columns from i on, or as many columns as are left, all rows: what these share stays in registers.
template <bool First, bool Plain, Finish How, Emit Codes, bool Keep, bool Whole>
void pass_columns(const SoniqPart& part, const Block& block, const SoniqCodesOut& out, int64_t i) {
  const Lanes zero = {};
  WideTerms terms[4];
  Mask masks[4];
  int64_t live[4];
  for (int j = 0; j < 4; ++j) {
    const int64_t at = i + j * SONIQ_LANES;
    live[j] = Whole ? SONIQ_LANES : larger(0, smaller(block.cols - at, SONIQ_LANES));
    masks[j] = mask_of(live[j]);
    const Some load{masks[j]};
    terms[j] = {load(part.offset + at, Integers{}), load(part.scale + at, zero), How == kNothing ? zero : load(block.bias + at, zero)};
  }
  const Lanes hi = Codes == kRectified ? all_of(*out.hi) : zero, inverse = Codes == kRectified ? all_of(*out.inverse) : zero;
  for (int64_t r = 0; r < block.n; ++r) {
    const Row row = row_of(part, block, out, r);
    Lanes v[4] = {};
    const auto vector = [&](int j, const auto& load) SONIQ_INLINE_LAMBDA {
      const int64_t at = i + j * SONIQ_LANES;
      const Lanes t = value<First, Plain, How>(row, at, terms[j], load);
      if (Keep) Whole ? store(row.out + at, t) : store_some(row.out + at, masks[j], t);
      if (Codes == kCodes) v[j] = unrounded<Lanes, Codes>(row, at, t, load);
      // What is negative saturates. The smaller of hi and no number is no number, which becomes 0 too.
      if (Codes == kRectified) v[j] = smaller_of(hi, t * inverse);
    };
    for (int j = 0; j < 4; ++j) {
      if (Whole)
        vector(j, All{});
      else if (live[j] > 0)
        vector(j, Some{masks[j]});
    }
    if (Codes == kNoCodes) continue;
    uint8_t* codes = out.codes + r * out.ld + i;
    Whole ? store_codes(v, codes) : store_some_codes(v, codes, block.cols - i);
  }
}
#endif

#ifndef SONIQ_LANES
template <bool First, bool Plain, Finish How, Emit Codes, bool Keep>
void pass_row(const Row row, int64_t cols, uint8_t* __restrict codes) {
  SONIQ_NO_ALIAS
  for (int64_t k = 0; k < cols; ++k) {
    const Terms terms = {row.offset[k], row.scale[k], How == kNothing ? 0.0f : row.bias[k]};
    const float t = value<First, Plain, How>(row, k, terms, All{});
    if (Keep) row.out[k] = t;
    if (Codes != kNoCodes) codes[k] = static_cast<uint8_t>(soniq_rounded(unrounded<float, Codes>(row, k, t, All{})));
  }
}
#endif

template <bool First, bool Plain, Finish How, Emit Codes, bool Keep>
void pass(const SoniqPart& part, const Block& block) {
  const SoniqCodesOut none = {}, &out = Codes == kNoCodes ? none : *block.codes;
#ifdef SONIQ_LANES
  int64_t i = 0;
  for (; i + 4 * SONIQ_LANES <= block.cols; i += 4 * SONIQ_LANES) pass_columns<First, Plain, How, Codes, Keep, true>(part, block, out, i);
  if (i < block.cols) pass_columns<First, Plain, How, Codes, Keep, false>(part, block, out, i);
#else
  for (int64_t r = 0; r < block.n; ++r) {
    const Row row = row_of(part, block, out, r);
    pass_row<First, Plain, How, Codes, Keep>(row, block.cols, Codes == kNoCodes ? nullptr : out.codes + r * out.ld);
  }
#endif
}

template <bool First, bool Plain, Emit Codes, bool Keep>
void pass_by_finish(Finish how, const SoniqPart& part, const Block& block) {
  switch (how) {
    case kNothing: return pass<First, Plain, kNothing, kNoCodes, true>(part, block);
    case kBias: return pass<First, Plain, kBias, Codes, Keep>(part, block);
    case kRelu: return pass<First, Plain, kRelu, Codes, Keep>(part, block);
    case kAdd: return pass<First, Plain, kAdd, Codes, Keep>(part, block);
    case kReluAdd: return pass<First, Plain, kReluAdd, Codes, Keep>(part, block);
    case kAddRelu: return pass<First, Plain, kAddRelu, Codes, Keep>(part, block);
    case kReluAddRelu: return pass<First, Plain, kReluAddRelu, Codes, Keep>(part, block);
  }
}

// Codes that rectify need no relu before them.
template <bool First, bool Plain>
void pass_rectified(Finish how, const SoniqPart& part, const Block& block) {
  switch (how) {
    case kNothing: return pass<First, Plain, kNothing, kNoCodes, true>(part, block);
    case kBias: case kRelu: return pass<First, Plain, kBias, kRectified, false>(part, block);
    case kAdd: case kAddRelu: return pass<First, Plain, kAdd, kRectified, false>(part, block);
    case kReluAdd: case kReluAddRelu: return pass<First, Plain, kReluAdd, kRectified, false>(part, block);
  }
}

template <bool First, bool Plain>
void pass_by_codes(Finish how, const SoniqPart& part, const Block& block) {
  if (block.codes == nullptr) return pass_by_finish<First, Plain, kNoCodes, true>(how, part, block);
  if (block.keeps) return pass_by_finish<First, Plain, kCodes, true>(how, part, block);
  return block.codes->rectifies ? pass_rectified<First, Plain>(how, part, block)
                                : pass_by_finish<First, Plain, kCodes, false>(how, part, block);
}

void pass_rows(const SoniqPart& part, Finish how, const Block& block) {
  if (part.left == 0 && part.right == 0) {
    return part.is_first ? pass_by_codes<true, true>(how, part, block) : pass_by_codes<false, true>(how, part, block);
  }
  return part.is_first ? pass_by_codes<true, false>(how, part, block) : pass_by_codes<false, false>(how, part, block);
}

// Narrow rows, `at_once` of them as one: then nothing lies between the rows of any array.
void pass_part(const SoniqPart& part, Finish how, const Block& block, int64_t at_once) {
  const int64_t wide = block.n / at_once, done = wide * at_once * block.cols;
  Block some = block;
  some.n = wide, some.cols *= at_once, some.ld_raw *= at_once, some.ld *= at_once;
  SoniqCodesOut codes;
  if (block.codes != nullptr) {
    codes = *block.codes;
    codes.ld *= at_once;
    some.codes = &codes;
  }
  pass_rows(part, how, some);
  if (wide * at_once == block.n) return;
  some = block;
  some.n -= wide * at_once, some.raw += done, some.tile += done, some.out += done;
  if (block.residual != nullptr) some.residual += done;
  if (block.codes != nullptr) {
    codes = *block.codes;
    codes.codes += done;
    some.codes = &codes;
  }
  pass_rows(part, how, some);
}

Finish finish_of(const SoniqLayer& layer) {
  if (layer.residual == nullptr) return layer.relu_first || layer.relu_last ? kRelu : kBias;
  if (layer.relu_first) return layer.relu_last ? kReluAddRelu : kReluAdd;
  return layer.relu_last ? kAddRelu : kAdd;
}

// The output that is made at once: n rows from row `first` on, columns `begin` to `end`; the rows that pooling leaves of
// them; and where.
struct Window {
  int64_t first, n, begin, end, pooled_first, pooled_n;
  int32_t* acc;
  float *tile, *out;
  const uint8_t** pointers;
  uint8_t *folded_codes, *folded_rows;
};

// The columns of a part that lie in the window.
SoniqPart columns_of(const SoniqPart& part, const Window& window) {
  SoniqPart some = part;
  const int64_t skipped = larger(window.begin - part.first_column, 0);
  some.first_column = part.first_column + skipped;
  some.cols = smaller(part.first_column + part.cols, window.end) - some.first_column;
  if (skipped > 0) {
    some.weights += part.kernel->w_bytes(skipped, part.taps, part.k);  // whole panels: they lie one after another
    some.offset += skipped;
    some.scale += skipped;
    some.image += skipped * part.column_bytes;
    if (part.pad_pixel != nullptr) some.pad_pixel += skipped * part.column_bytes;
  }
  return some;
}

// The sums of a band, the largest of each window in place of its rows.
void pool_sums(const SoniqLayer& layer, int64_t ld, int32_t* sums) {
  const int64_t width = layer.band_rows / layer.pool_height;
  for (int64_t x = 0; x + layer.pool_width <= width; x += layer.pool_width) {
    int32_t* const out = sums + x / layer.pool_width * ld;
    const int32_t* const window = sums + x * ld;
    for (int64_t i = 1; i < layer.pool_height * layer.pool_width; ++i) {
      const int32_t *first = i == 1 ? window : out, *next = window + (i / layer.pool_width * width + i % layer.pool_width) * ld;
      SONIQ_NO_ALIAS
      for (int64_t c = 0; c < ld; ++c) out[c] = first[c] > next[c] ? first[c] : next[c];
    }
  }
}

void run_part(const SoniqLayer& layer, const SoniqPart& whole, const Window& window) {
  const SoniqPart part = columns_of(whole, window);
  if (part.cols <= 0) return;
  const int64_t nr = part.kernel->nr, column = part.first_column;
  const int64_t ld_raw = (part.cols + nr - 1) / nr * nr;
  point(layer, part, window.first, window.n, window.pointers);
  if (part.run_codes > 0) fold(layer, part, window.n, window.pointers, window.folded_codes, window.folded_rows);
  part.kernel->run(window.n, part.cols, part.taps, part.k, window.pointers, layer.block_rows, part.weights, window.acc, ld_raw);
  if (layer.band_rows > 1) pool_sums(layer, ld_raw, window.acc);
  const int64_t first = window.pooled_first, n = window.pooled_n;
  const float* residual = layer.residual == nullptr ? nullptr : layer.residual + first * layer.cols + column;
  SoniqCodesOut codes;
  if (layer.n_codes_out > 0) {
    const SoniqCodesOut& all = layer.codes_out[0];
    codes = {all.codes + first * all.ld + column, all.ld, all.inverse + column, all.shift + column, all.lo + column, all.hi + column, all.rectifies};
  }
  float* const tile = window.tile + column;
  const Block block = {n, part.cols, window.acc, ld_raw, tile, part.is_last ? window.out + column : tile, layer.cols, layer.bias + column, residual,
                       layer.out != nullptr || layer.n_codes_out > 1, part.is_last && layer.n_codes_out > 0 ? &codes : nullptr};
  pass_part(part, part.is_last ? finish_of(layer) : kNothing, block, part.cols == layer.cols ? layer.rows_at_once : 1);
}

// Codes of a further quantizer of the same tensor.
void emit(const SoniqCodesOut& out, const SoniqLayer& layer, const Window& window) {
  const int64_t width = window.end - window.begin;
  for (int64_t r = 0; r < window.pooled_n; ++r) {
    uint8_t* __restrict codes = out.codes + (window.pooled_first + r) * out.ld + window.begin;
    const float* __restrict t = window.out + r * layer.cols + window.begin;
    const float *__restrict inverse = out.inverse + window.begin, *__restrict shift = out.shift + window.begin;
    const float *__restrict lo = out.lo + window.begin, *__restrict hi = out.hi + window.begin;
    SONIQ_NO_ALIAS
    for (int64_t i = 0; i < width; ++i) codes[i] = soniq_code(t[i], inverse[i], shift[i], lo[i], hi[i]);
  }
}

template <typename T>
T* shifted(T* pointer, int64_t bytes) { return reinterpret_cast<T*>(reinterpret_cast<char*>(pointer) + bytes); }

}  // namespace

void soniq_pack_share(const SoniqPack& p, SoniqShare share) {
  const int64_t begin = share.begin(p.n_strips), end = share.end(p.n_strips);
  uint8_t* out = p.out + begin * p.ld_out;
  const uint8_t* codes = p.codes + begin * p.width * p.ld_codes;
  const bool at_once = p.kernel != nullptr && p.by_strip;
  if (at_once) p.kernel->pack_a(end - begin, p.width * p.k, codes, p.width * p.ld_codes, out + p.left * p.pixel_bytes, p.ld_out);
  for (int64_t s = begin; s < end; ++s, out += p.ld_out, codes += p.width * p.ld_codes) {
    if (!at_once) pack_pixels(p, codes, out + p.left * p.pixel_bytes);
    pad(p, out, p.left);  // after the packing, which may write past its end
    pad(p, out + (p.left + p.width) * p.pixel_bytes, p.right);
  }
  if (share.index == share.count - 1) pad(p, p.out + p.n_strips * p.ld_out, p.left + p.width + p.right);
}

void soniq_layer_share(const SoniqLayer& layer, int64_t index) {
  if (index >= layer.row_shares * layer.column_shares) return;
  const SoniqShare rows = {index / layer.column_shares, layer.row_shares}, columns = {index % layer.column_shares, layer.column_shares};
  const int64_t steps = (layer.cols + layer.column_step - 1) / layer.column_step, offset = index * layer.scratch_bytes;
  const int64_t begin = columns.begin(steps) * layer.column_step;
  const int64_t end = smaller(columns.end(steps) * layer.column_step, layer.cols);
  Window window = {};
  window.acc = static_cast<int32_t*>(shifted(layer.acc, offset)), window.tile = shifted(layer.tile, offset);
  window.pointers = shifted(layer.pointers, offset);
  window.folded_codes = shifted(layer.folded_codes, offset), window.folded_rows = shifted(layer.folded_rows, offset);
  const int64_t bands = layer.rows / layer.band_rows, of_band = layer.band_rows / layer.pool_height / layer.pool_width;
  const int64_t first = rows.begin(bands) * layer.band_rows, last = rows.end(bands) * layer.band_rows;
  const auto run_window = [&](int64_t row, int64_t column) {
    window.first = row, window.n = smaller(layer.block_rows, last - row);
    window.pooled_first = row / layer.band_rows * of_band, window.pooled_n = window.n / layer.band_rows * of_band;
    window.begin = column, window.end = smaller(column + layer.block_columns, end);
    window.out = layer.out == nullptr ? window.tile : layer.out + window.pooled_first * layer.cols;
    for (int64_t p = 0; p < layer.n_parts; ++p) run_part(layer, layer.parts[p], window);
    for (int64_t o = 1; o < layer.n_codes_out; ++o) emit(layer.codes_out[o], layer, window);
  };
  if (layer.columns_first) {
    for (int64_t c = begin; c < end; c += layer.block_columns)
      for (int64_t r = first; r < last; r += layer.block_rows) run_window(r, c);
  } else {
    for (int64_t r = first; r < last; r += layer.block_rows)
      for (int64_t c = begin; c < end; c += layer.block_columns) run_window(r, c);
  }
}

extern "C" void soniq_pack(const SoniqPack* pack) { soniq_pack_share(*pack, {0, 1}); }

extern "C" void soniq_layer(const SoniqLayer* layer) {
  SoniqLayer whole = *layer;
  whole.row_shares = whole.column_shares = 1;
  soniq_layer_share(whole, 0);
}
