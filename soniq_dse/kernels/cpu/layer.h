// The layer driver: one linear layer or convolution (an implicit GEMM) over any number of segments, epilogue included.
//
// Activations are codes, channels last: [batch][height][width][channels], channels in the order of their segments. A *part* is
// what one kernel does: one segment of one group. It reads *strips*: image rows with their border left and right, made once per
// tensor and kernel by soniq_pack; behind the last one lies a strip of pad pixels, which stands for every row outside the image.
// A tap of a part is a pointer to a pixel of a strip:
//   by tap   one pointer per kernel position
//   by run   where packed pixels lie side by side, those under one row of the kernel are one k: a pointer per kernel row
//   folded   strips hold plain codes; those of all taps are copied into one k per output row, then packed (narrow layers, groups)
// A depthwise part reads the codes themselves, by tap: pad_pixel stands for what lies outside.
// Buffers of codes and strips are followed by 64 bytes that may be read, and in the scratch written.
//
// Threads. Share i of row_shares x column_shares does its part of the output; which one has no influence on any result, for
// every output is computed by one thread in one order.
//
// Epilogue, fp32, each operation rounded on its own (built without contraction):
//   t = 0; per part in palette order: t = t + f32(((raw << left) + offset[n]) >> right) * scale[n];  t = t + bias[n];
//   relu_first; t = t + residual; relu_last; then t itself and/or codes clamp(rint(t * inverse[n] + shift[n]), lo[n], hi[n])
//
// Pool. A max pool behind relu, padded by as much as its windows overlap, is done on raw sums: where no scale is negative,
// t never falls as they rise. A block then is a band, that is the rows which one row of windows does not share with the one
// above, and what follows the sums, t and codes and all, is of the pooled rows. Only layers of one part have a pool.
#pragma once
#include "soniq_kernel.h"

// To the nearest integer, half to even; what fits an int.
inline int soniq_rounded(float value) {
#if defined(__clang__)  // which has no irintf
  return static_cast<int>(__builtin_lrintf(value));
#else
  return __builtin_irintf(value);
#endif
}

// The code of a value: see the epilogue above.
inline uint8_t soniq_code(float value, float inverse, float shift, float lo, float hi) {
  float v = value * inverse;
  v = v + shift;
  v = v > lo ? v : lo;  // lo and hi are whole numbers, so clamping first gives the same and saves a rounding
  v = v < hi ? v : hi;
  return static_cast<uint8_t>(soniq_rounded(v));
}

// What thread `index` of `count` does of some work: the same part in every run.
struct SoniqShare {
  int64_t index, count;
  int64_t begin(int64_t n) const { return n * index / count; }
  int64_t end(int64_t n) const { return n * (index + 1) / count; }
};

struct SoniqPack {
  const SoniqKernel* kernel;  // null: strips of plain codes
  const uint8_t* codes;       // first channel of those to be packed
  const int32_t* channels;    // positions of the k channels, or null where they are contiguous
  int64_t ld_codes, n_strips, width, k;
  int64_t by_strip;           // the kernel packs a strip as one row of width * k codes
  uint8_t* out;               // n_strips + 1 strips
  int64_t ld_out, pixel_bytes, left, right;
  const uint8_t* pad_pixel;   // packed, pixel_bytes
};

struct SoniqPart {
  const SoniqKernel* kernel;
  const uint8_t* weights;
  const int32_t* offset;  // [cols]
  const float* scale;     // [cols]
  int32_t left, right;
  int64_t taps, k;               // as the kernel sees them
  int64_t first_column, cols;    // output channels
  int32_t is_first, is_last;     // of the parts of its output channels
  const uint8_t* image;          // its strips, from its first channel on
  int64_t ld_image, pixel_bytes;
  int64_t column_bytes;          // depthwise: of a pixel, from the code of one output channel to that of the next; else 0
  const uint8_t* pad_pixel;      // where the image has no border; else null
  int64_t first_pixel;           // of a strip: where the first output column's window begins
  int64_t taps_per_row;          // of the kernel window; 1: by run
  int64_t run_codes;             // folded: codes to copy per tap; else 0
  int64_t ld_folded;             // bytes of a packed row of the folded scratch
};

struct SoniqCodesOut {
  uint8_t* codes;
  int64_t ld;
  const float *inverse, *shift, *lo, *hi;  // [rows_at_once][cols]
  int64_t rectifies;  // shift and lo are 0, so that what is not positive has code 0; inverse and hi have one value each
};

struct SoniqLayer {
  int64_t rows, cols, block_rows, block_columns, columns_first;  // columns_first: all rows of some columns, then the next
  int64_t rows_at_once;  // the vectors of the epilogue (scale ... hi) are repeated so often: narrow rows are done together
  int64_t row_shares, column_shares, column_step;  // shares of columns are whole multiples of column_step, or the last
  // 1 where nothing is pooled; shares of rows are whole bands; pool_bands: of an image
  int64_t band_rows, pool_height, pool_width, pool_row_step, pool_column_step, pool_bands;
  int64_t out_height, out_width, height, width, n_strips;
  int64_t kernel_height, stride_height, stride_width, pad_height, pad_width, dilation_height, dilation_width;
  const SoniqPart* parts;
  int64_t n_parts;
  const float* bias;
  const float* residual;  // [rows][cols] or null; out may be the same
  int32_t relu_first, relu_last;
  float* out;  // [rows][cols] or null, of pooled rows where there is a pool
  const SoniqCodesOut* codes_out;
  int64_t n_codes_out;
  // Scratch of one block of rows of the first share; those of the others follow, each scratch_bytes behind the one before.
  int64_t scratch_bytes;
  void* acc;
  float* tile;
  const uint8_t** pointers;
  uint8_t* folded_codes;
  uint8_t* folded_rows;
};

void soniq_pack_share(const SoniqPack& pack, SoniqShare share);
void soniq_layer_share(const SoniqLayer& layer, int64_t share);

// Whole, in the calling thread.
extern "C" void soniq_pack(const SoniqPack* pack);
extern "C" void soniq_layer(const SoniqLayer* layer);
