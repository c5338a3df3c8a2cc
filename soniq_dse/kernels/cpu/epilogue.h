// From the sums of a block to fp32 and codes: one pass over the columns of each part of a layer.
#pragma once

#include "lanes.h"
#include "layer.h"

namespace {

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
  auto t = sum_of(load(row.raw + i, terms.offset), row.left, terms.offset, row.right, Plain) * terms.scale;
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

}  // namespace
