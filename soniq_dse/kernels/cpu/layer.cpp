// See layer.h. Plain loops over contiguous channels: the compiler vectorises them for the host.
#include "layer.h"

// None of the arrays of a loop overlap: with so many of them, compilers give up checking that at run time.
#if defined(__clang__)
#define SONIQ_NO_ALIAS _Pragma("clang loop vectorize(assume_safety)")
#else
#define SONIQ_NO_ALIAS _Pragma("GCC ivdep")
#endif

namespace {

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Copies at least n bytes, Width at a time where n is no more: a short copy of unknown length would be a call. What is written
// past n is written again by the next copy, or lies behind the buffer, as what is read past n does (guard bytes).
template <int64_t Width>
inline void copy(uint8_t* to, const uint8_t* from, int64_t n) {
  __builtin_memcpy(to, from, Width == 0 ? n : Width);
}

template <int64_t Width>
void gather_codes(const SoniqLayer& layer, const SoniqPart& part, int64_t first, int64_t n) {
  uint8_t* out = layer.folded_codes;
  for (int64_t r = first; r < first + n; ++r) {
    for (int64_t t = 0; t < layer.taps; ++t, out += part.n_channels) {
      const int64_t pixel = layer.gather[t * layer.rows + r];
      const uint8_t* in = pixel == layer.pixels ? layer.pad_codes : layer.codes + pixel * layer.ld_codes;
      if (part.channels == nullptr) {
        copy<Width>(out, in + part.first_channel, part.n_channels);
      } else {
        for (int64_t c = 0; c < part.n_channels; ++c) out[c] = in[part.channels[c]];
      }
    }
  }
}

// Codes of `n` output rows from row `first`, taps x channels each, and their packed rows.
void fold(const SoniqLayer& layer, const SoniqPart& part, int64_t first, int64_t n) {
  const int64_t row_codes = layer.taps * part.n_channels;
  const auto gather = part.n_channels <= 16 ? gather_codes<16> : part.n_channels <= 32 ? gather_codes<32>
                      : part.n_channels <= 64 ? gather_codes<64> : gather_codes<0>;
  gather(layer, part, first, n);
  part.kernel->pack_a(n, row_codes, layer.folded_codes, row_codes, layer.folded_rows, part.ld_image);
  for (int64_t r = 0; r < n; ++r) layer.pointers[r] = layer.folded_rows + r * part.ld_image;
}

void point(const SoniqLayer& layer, const SoniqPart& part, int64_t first, int64_t n) {
  for (int64_t t = 0; t < layer.taps; ++t) {
    const int32_t* pixels = layer.gather + t * layer.rows + first;
    const uint8_t** out = layer.pointers + t * layer.block_rows;
    for (int64_t r = 0; r < n; ++r) out[r] = part.image + pixels[r] * part.ld_image;
  }
}

// `zero` is a variable, so that compilers see the pattern of a vector maximum.
inline float relu(float x, float zero) { return x > zero ? x : zero; }

// Where a pass over a block works: n rows of the part's columns.
struct Block {
  int64_t n;
  const int32_t* raw;
  int64_t ld_raw;
  float* tile;  // ld: the layer's cols, as for bias, residual and the vectors of codes
  int64_t ld;
  const float *bias, *residual;
  float zero;
  const SoniqCodesOut* codes;  // at the block's first row and the part's first column
};

enum Finish { kNothing, kBias, kRelu, kAdd, kReluAdd, kAddRelu, kReluAddRelu };

// t = t + f32(((raw << left) + offset) >> right) * scale; the sums may wrap, their final value fits. The pass over the last
// part of its columns goes on to bias, relu, residual and codes, while t is in a register. The first part leaves out 0 +,
// which could only change the sign of a zero.
template <bool First, bool Plain, Finish How, bool Codes>
void pass(const SoniqPart& part, const Block& block) {
  const int32_t* __restrict offset = part.offset;
  const float *__restrict scale = part.scale, *__restrict bias = block.bias;
  const int32_t left = part.left, right = part.right;
  const int64_t cols = part.cols;
  const float zero = block.zero;
  for (int64_t r = 0; r < block.n; ++r) {
    const int32_t* __restrict raw = block.raw + r * block.ld_raw;
    float* __restrict tile = block.tile + r * block.ld;
    const float* __restrict residual = How >= kAdd ? block.residual + r * block.ld : nullptr;
    uint8_t* __restrict codes = Codes ? block.codes->codes + r * block.codes->ld : nullptr;
    const float *__restrict inverse = Codes ? block.codes->inverse : nullptr, *__restrict add = Codes ? block.codes->shift : nullptr;
    const float *__restrict lo = Codes ? block.codes->lo : nullptr, *__restrict hi = Codes ? block.codes->hi : nullptr;
    SONIQ_NO_ALIAS
    for (int64_t i = 0; i < cols; ++i) {
      const uint32_t product = static_cast<uint32_t>(raw[i]) << (Plain ? 0 : left);
      const int32_t sum = static_cast<int32_t>(product + static_cast<uint32_t>(offset[i]));
      const float term = static_cast<float>(Plain ? sum : sum >> right) * scale[i];
      float t = First ? term : tile[i] + term;
      if (How != kNothing) t = t + bias[i];
      if (How == kRelu || How == kReluAdd || How == kReluAddRelu) t = relu(t, zero);
      if (How >= kAdd) t = t + residual[i];
      if (How == kAddRelu || How == kReluAddRelu) t = relu(t, zero);
      tile[i] = t;
      if (Codes) codes[i] = soniq_code(t, inverse[i], add[i], lo[i], hi[i]);
    }
  }
}

template <bool First, bool Plain, bool Codes>
void pass_by_finish(Finish how, const SoniqPart& part, const Block& block) {
  switch (how) {
    case kNothing: return pass<First, Plain, kNothing, false>(part, block);
    case kBias: return pass<First, Plain, kBias, Codes>(part, block);
    case kRelu: return pass<First, Plain, kRelu, Codes>(part, block);
    case kAdd: return pass<First, Plain, kAdd, Codes>(part, block);
    case kReluAdd: return pass<First, Plain, kReluAdd, Codes>(part, block);
    case kAddRelu: return pass<First, Plain, kAddRelu, Codes>(part, block);
    case kReluAddRelu: return pass<First, Plain, kReluAddRelu, Codes>(part, block);
  }
}

template <bool First, bool Plain>
void pass_by_codes(Finish how, const SoniqPart& part, const Block& block) {
  return block.codes != nullptr ? pass_by_finish<First, Plain, true>(how, part, block)
                                : pass_by_finish<First, Plain, false>(how, part, block);
}

Finish finish_of(const SoniqLayer& layer) {
  if (layer.residual == nullptr) return layer.relu_first || layer.relu_last ? kRelu : kBias;
  if (layer.relu_first) return layer.relu_last ? kReluAddRelu : kReluAdd;
  return layer.relu_last ? kAddRelu : kAdd;
}

void run_part(const SoniqLayer& layer, const SoniqPart& part, int64_t first, int64_t n, float* tile) {
  if (part.is_folded) {
    fold(layer, part, first, n);
  } else {
    point(layer, part, first, n);
  }
  const int64_t nr = part.kernel->nr, ld_raw = (part.cols + nr - 1) / nr * nr, column = part.first_column;
  part.kernel->run(n, part.cols, part.taps, part.k, layer.pointers, layer.block_rows, part.weights, layer.acc, ld_raw);
  const float* residual = layer.residual == nullptr ? nullptr : layer.residual + first * layer.cols + column;
  SoniqCodesOut codes;
  if (layer.n_codes_out > 0) {
    const SoniqCodesOut& all = layer.codes_out[0];
    codes = {all.codes + first * all.ld + column, all.ld, all.inverse + column, all.shift + column, all.lo + column, all.hi + column};
  }
  const Block block = {n, static_cast<const int32_t*>(layer.acc), ld_raw, tile + column, layer.cols,
                       layer.bias + column, residual, 0.0f, part.is_last && layer.n_codes_out > 0 ? &codes : nullptr};
  const Finish how = part.is_last ? finish_of(layer) : kNothing;
  if (part.left == 0 && part.right == 0) {
    return part.is_first ? pass_by_codes<true, true>(how, part, block) : pass_by_codes<false, true>(how, part, block);
  }
  return part.is_first ? pass_by_codes<true, false>(how, part, block) : pass_by_codes<false, false>(how, part, block);
}

// Codes of a further quantizer of the same tensor.
void emit(const SoniqCodesOut& out, int64_t cols, int64_t first, int64_t n, const float* tile) {
  for (int64_t r = 0; r < n; ++r) {
    uint8_t* __restrict codes = out.codes + (first + r) * out.ld;
    const float* __restrict t = tile + r * cols;
    SONIQ_NO_ALIAS
    for (int64_t i = 0; i < cols; ++i) codes[i] = soniq_code(t[i], out.inverse[i], out.shift[i], out.lo[i], out.hi[i]);
  }
}

}  // namespace

extern "C" void soniq_pack(const SoniqPack* pack) {
  pack->kernel->pack_a(pack->pixels, pack->k, pack->codes, pack->ld_codes, pack->out, pack->ld_out);
  __builtin_memcpy(pack->out + pack->pixels * pack->ld_out, pack->pad_row, pack->ld_out);
}

extern "C" void soniq_layer(const SoniqLayer* layer) {
  for (int64_t first = 0; first < layer->rows; first += layer->block_rows) {
    const int64_t n = smaller(layer->block_rows, layer->rows - first);
    float* tile = layer->out == nullptr ? layer->tile : layer->out + first * layer->cols;
    for (int64_t p = 0; p < layer->n_parts; ++p) run_part(*layer, layer->parts[p], first, n, tile);
    for (int64_t o = 1; o < layer->n_codes_out; ++o) emit(layer->codes_out[o], layer->cols, first, n, tile);
  }
}
