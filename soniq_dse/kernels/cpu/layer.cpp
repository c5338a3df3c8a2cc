// See layer.h. Plain loops over contiguous channels: the compiler vectorises them for the host.
#include "layer.h"

namespace {

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

void copy(uint8_t* __restrict to, const uint8_t* __restrict from, int64_t n) { __builtin_memcpy(to, from, n); }

// Codes of `n` output rows from row `first`, taps x channels each, and their packed rows.
void fold(const SoniqLayer& layer, const SoniqPart& part, int64_t first, int64_t n) {
  const int64_t row_codes = layer.taps * part.n_channels;
  for (int64_t r = 0; r < n; ++r) {
    uint8_t* out = layer.folded_codes + r * row_codes;
    for (int64_t t = 0; t < layer.taps; ++t, out += part.n_channels) {
      const int64_t pixel = layer.gather[t * layer.rows + first + r];
      const uint8_t* in = pixel == layer.pixels ? layer.pad_codes : layer.codes + pixel * layer.ld_codes;
      if (part.channels == nullptr) {
        copy(out, in + part.first_channel, part.n_channels);
      } else {
        for (int64_t c = 0; c < part.n_channels; ++c) out[c] = in[part.channels[c]];
      }
    }
  }
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

// t = t + f32((mul * raw + offset) >> shift) * scale over one row; the sums may wrap, their final value fits.
template <bool First, bool Plain>
void accumulate(const SoniqPart& part, const int32_t* __restrict raw, float* __restrict tile) {
  const int32_t* __restrict offset = part.offset;
  const float* __restrict scale = part.scale;
  const uint32_t mul = static_cast<uint32_t>(part.mul);
  const int32_t shift = part.shift;
  for (int64_t i = 0; i < part.cols; ++i) {
    const uint32_t product = Plain ? static_cast<uint32_t>(raw[i]) : mul * static_cast<uint32_t>(raw[i]);
    const int32_t sum = static_cast<int32_t>(product + static_cast<uint32_t>(offset[i]));
    const float term = static_cast<float>(Plain ? sum : sum >> shift) * scale[i];
    tile[i] = (First ? 0.0f : tile[i]) + term;
  }
}

void run_part(const SoniqLayer& layer, const SoniqPart& part, int64_t first, int64_t n) {
  if (part.is_folded) {
    fold(layer, part, first, n);
  } else {
    point(layer, part, first, n);
  }
  const int64_t nr = part.kernel->nr, ld_acc = (part.cols + nr - 1) / nr * nr;
  part.kernel->run(n, part.cols, part.taps, part.k, layer.pointers, layer.block_rows, part.weights, layer.acc, ld_acc);
  const bool plain = part.mul == 1 && part.shift == 0;
  const auto pass = part.is_first ? (plain ? accumulate<true, true> : accumulate<true, false>)
                                  : (plain ? accumulate<false, true> : accumulate<false, false>);
  for (int64_t r = 0; r < n; ++r) {
    pass(part, static_cast<const int32_t*>(layer.acc) + r * ld_acc, layer.tile + r * layer.cols + part.first_column);
  }
}

inline float relu(float x) { return x > 0.0f ? x : 0.0f; }

template <bool ReluFirst, bool Residual, bool ReluLast>
void finish(int64_t n, float* __restrict tile, const float* __restrict bias, const float* __restrict residual) {
  for (int64_t i = 0; i < n; ++i) {
    float t = tile[i] + bias[i];
    if (ReluFirst) t = relu(t);
    if (Residual) t = t + residual[i];
    if (ReluLast) t = relu(t);
    tile[i] = t;
  }
}

void emit(const SoniqCodesOut& out, int64_t n, int64_t row, const float* __restrict tile) {
  uint8_t* __restrict codes = out.codes + row * out.ld;
  const float *__restrict inverse = out.inverse, *__restrict shift = out.shift;
  const float *__restrict lo = out.lo, *__restrict hi = out.hi;
  for (int64_t i = 0; i < n; ++i) {
    float v = tile[i] * inverse[i];
    v = v + shift[i];
    v = __builtin_rintf(v);
    v = v > lo[i] ? v : lo[i];
    v = v < hi[i] ? v : hi[i];
    codes[i] = static_cast<uint8_t>(static_cast<int32_t>(v));
  }
}

using Finish = void (*)(int64_t, float*, const float*, const float*);

Finish finish_of(const SoniqLayer& layer) {
  if (layer.residual == nullptr) {
    return layer.relu_first || layer.relu_last ? finish<true, false, false> : finish<false, false, false>;
  }
  if (layer.relu_first) return layer.relu_last ? finish<true, true, true> : finish<true, true, false>;
  return layer.relu_last ? finish<false, true, true> : finish<false, true, false>;
}

}  // namespace

extern "C" void soniq_pack(const SoniqPack* pack) {
  pack->kernel->pack_a(pack->pixels, pack->k, pack->codes, pack->ld_codes, pack->out, pack->ld_out);
  copy(pack->out + pack->pixels * pack->ld_out, pack->pad_row, pack->ld_out);
}

extern "C" void soniq_layer(const SoniqLayer* layer) {
  const Finish finish_row = finish_of(*layer);
  for (int64_t first = 0; first < layer->rows; first += layer->block_rows) {
    const int64_t n = smaller(layer->block_rows, layer->rows - first);
    for (int64_t p = 0; p < layer->n_parts; ++p) run_part(*layer, layer->parts[p], first, n);
    for (int64_t r = 0; r < n; ++r) {
      float* tile = layer->tile + r * layer->cols;
      const int64_t row = first + r;
      finish_row(layer->cols, tile, layer->bias, layer->residual == nullptr ? nullptr : layer->residual + row * layer->cols);
      if (layer->out != nullptr) __builtin_memcpy(layer->out + row * layer->cols, tile, layer->cols * sizeof(float));
      for (int64_t o = 0; o < layer->n_codes_out; ++o) emit(layer->codes_out[o], layer->cols, row, tile);
    }
  }
}
