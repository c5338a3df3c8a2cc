// See layer.h. Plain loops over contiguous channels, which the compiler vectorises for the host; what follows the sums is in
// epilogue.h.
#include "epilogue.h"

namespace {

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

Finish finish_of(const SoniqLayer& layer) {
  if (layer.residual == nullptr) return layer.relu_first || layer.relu_last ? kRelu : kBias;
  if (layer.relu_first) return layer.relu_last ? kReluAddRelu : kReluAdd;
  return layer.relu_last ? kAddRelu : kAdd;
}

// The output that is made at once: n rows from row `first` on, columns `begin` to `end`; the rows that pooling leaves of
// them; and where.
struct Window {
  int64_t first, n, begin, end, pooled_first, pooled_n;
  int64_t lead;  // image rows that the band above shares, and that are done again
  bool begins_image;
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

// into = the larger of two rows of n sums.
void larger_sums(const int32_t* a, const int32_t* b, int64_t n, int32_t* into) {
  SONIQ_NO_ALIAS
  for (int64_t i = 0; i < n; ++i) into[i] = a[i] > b[i] ? a[i] : b[i];
}

// The largest sum of each window of a band whose image rows begin at `sums`, in place of the first of them. Before it lie
// those that the windows share with the band above: `lead` of them are new, others were left here by that band.
void pool_sums(const SoniqLayer& layer, const Window& window, int64_t ld, int32_t* sums) {
  const int64_t shared = layer.pool_height - layer.pool_row_step, before = layer.pool_width - layer.pool_column_step;
  const int64_t width = layer.band_rows / layer.pool_row_step, row = width * ld, n = window.pooled_n * ld;
  for (int64_t y = -window.lead; y < layer.pool_row_step; ++y)
    for (int64_t x = 0; x < window.pooled_n; ++x) {
      const int64_t from = larger(x * layer.pool_column_step - before, 0);
      const int64_t to = smaller((x + 1) * layer.pool_column_step, width);
      const int32_t* at = sums + y * row + from * ld;
      int32_t* const out = sums + y * row + x * ld;
      larger_sums(at, at + (to - from > 1 ? ld : 0), ld, out);
      for (int64_t i = 2; i < to - from; ++i) larger_sums(out, at + i * ld, ld, out);
    }
  for (int64_t y = window.begins_image ? 1 : -shared; y < layer.pool_row_step; ++y)
    if (y != 0) larger_sums(sums, sums + y * row, n, sums);
  for (int64_t y = 1; y <= shared; ++y) __builtin_memcpy(sums - y * row, sums + (layer.pool_row_step - y) * row, n * sizeof(int32_t));
}

void run_part(const SoniqLayer& layer, const SoniqPart& whole, const Window& window) {
  const SoniqPart part = columns_of(whole, window);
  if (part.cols <= 0) return;
  const int64_t nr = part.kernel->nr, column = part.first_column;
  const int64_t ld_raw = (part.cols + nr - 1) / nr * nr, image_row = layer.band_rows / layer.pool_row_step * ld_raw;
  const int64_t lead = window.lead * image_row;
  int32_t* const sums = window.acc + (layer.pool_height - layer.pool_row_step) * image_row;
  point(layer, part, window.first, window.n, window.pointers);
  if (part.run_codes > 0) fold(layer, part, window.n, window.pointers, window.folded_codes, window.folded_rows);
  part.kernel->run(window.n, part.cols, part.taps, part.k, window.pointers, layer.block_rows, part.weights, sums - lead, ld_raw);
  if (layer.band_rows > 1) pool_sums(layer, window, ld_raw, sums);
  const int64_t first = window.pooled_first, n = window.pooled_n;
  const float* residual = layer.residual == nullptr ? nullptr : layer.residual + first * layer.cols + column;
  SoniqCodesOut codes;
  if (layer.n_codes_out > 0) {
    const SoniqCodesOut& all = layer.codes_out[0];
    codes = {all.codes + first * all.ld + column, all.ld, all.inverse + column, all.shift + column, all.lo + column, all.hi + column, all.rectifies};
  }
  float* const tile = window.tile + column;
  const Block block = {n, part.cols, sums, ld_raw, tile, part.is_last ? window.out + column : tile, layer.cols, layer.bias + column, residual,
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
  const auto run_window = [&](int64_t column, int64_t pooled_first, int64_t pooled_n) {
    window.pooled_first = pooled_first, window.pooled_n = pooled_n;
    window.begin = column, window.end = smaller(column + layer.block_columns, end);
    window.out = layer.out == nullptr ? window.tile : layer.out + pooled_first * layer.cols;
    for (int64_t p = 0; p < layer.n_parts; ++p) run_part(layer, layer.parts[p], window);
    for (int64_t o = 1; o < layer.n_codes_out; ++o) emit(layer.codes_out[o], layer, window);
  };
  const int64_t bands = layer.rows / layer.band_rows, first = rows.begin(bands), last = rows.end(bands);
  if (layer.band_rows > 1) {
    const int64_t width = layer.band_rows / layer.pool_row_step;
    const int64_t pooled = (width + layer.pool_width - layer.pool_column_step) / layer.pool_column_step;
    for (int64_t b = first; b < last; ++b) {
      window.begins_image = b % layer.pool_bands == 0;
      window.lead = b == first && !window.begins_image ? layer.pool_height - layer.pool_row_step : 0;
      window.n = layer.band_rows + window.lead * width, window.first = (b + 1) * layer.band_rows - window.n;
      run_window(begin, b * pooled, pooled);
    }
    return;
  }
  const auto run_rows = [&](int64_t row, int64_t column) {
    window.first = row, window.n = smaller(layer.block_rows, last - row);
    run_window(column, window.first, window.n);
  };
  if (layer.columns_first) {
    for (int64_t c = begin; c < end; c += layer.block_columns)
      for (int64_t r = first; r < last; r += layer.block_rows) run_rows(r, c);
  } else {
    for (int64_t r = first; r < last; r += layer.block_rows)
      for (int64_t c = begin; c < end; c += layer.block_columns) run_rows(r, c);
  }
}

extern "C" void soniq_pack(const SoniqPack* pack) { soniq_pack_share(*pack, {0, 1}); }

extern "C" void soniq_layer(const SoniqLayer* layer) {
  SoniqLayer whole = *layer;
  whole.row_shares = whole.column_shares = 1;
  soniq_layer_share(whole, 0);
}
