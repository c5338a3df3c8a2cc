// The layer driver: one linear layer or convolution (an implicit GEMM) over any number of segments, epilogue included.
//
// Activations are codes, channels last: [pixels][channels], channels in the order of their segments. A *part* is what one
// kernel does: one segment of one group. Its input reaches the kernel in one of two ways:
//   direct  the whole image was packed once (SoniqPack); per tap and output row a pointer to the packed row of its pixel
//   folded  taps x channels form one k: the codes of an output row are gathered, then packed (narrow layers, groups)
// Pixels outside the image are the pad pixel: index `pixels`, the row behind the image.
// Buffers of codes (codes, pad_codes, folded_codes) are followed by 64 bytes that may be read, and in the scratch written.
//
// Epilogue, fp32, each operation rounded on its own (built without contraction):
//   t = 0; per part in palette order: t = t + f32(((raw << left) + offset[n]) >> right) * scale[n];  t = t + bias[n];
//   relu_first; t = t + residual; relu_last; then t itself and/or codes clamp(rint(t * inverse[n] + shift[n]), lo[n], hi[n])
#pragma once
#include "soniq_kernel.h"

// The code of a value: see the epilogue above.
inline uint8_t soniq_code(float value, float inverse, float shift, float lo, float hi) {
  float v = value * inverse;
  v = v + shift;
  v = v > lo ? v : lo;  // lo and hi are whole numbers, so clamping first gives the same and saves a rounding
  v = v < hi ? v : hi;
  return static_cast<uint8_t>(__builtin_irintf(v));
}

struct SoniqPack {
  const SoniqKernel* kernel;
  const uint8_t* codes;  // first channel of the segment
  int64_t ld_codes, pixels, k;
  uint8_t* out;  // pixels + 1 packed rows
  int64_t ld_out;
  const uint8_t* pad_row;  // the packed pad pixel, ld_out bytes
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
  int64_t is_folded;
  const uint8_t* image;          // direct: packed rows
  int64_t ld_image;              // bytes of a packed row, here or in the folded scratch
  const int32_t* channels;       // folded: positions of the input channels, or null where they are contiguous
  int64_t first_channel, n_channels;
};

struct SoniqCodesOut {
  uint8_t* codes;
  int64_t ld;
  const float *inverse, *shift, *lo, *hi;  // [cols]
};

struct SoniqLayer {
  int64_t rows, cols, taps, pixels, block_rows;
  const int32_t* gather;  // [taps][rows] -> pixel
  const uint8_t* codes;   // input codes, for folded parts
  int64_t ld_codes;
  const uint8_t* pad_codes;  // one pixel of codes
  const SoniqPart* parts;
  int64_t n_parts;
  const float* bias;
  const float* residual;  // [rows][cols] or null
  int32_t relu_first, relu_last;
  float* out;  // [rows][cols] or null
  const SoniqCodesOut* codes_out;
  int64_t n_codes_out;
  // Scratch of one block of rows.
  void* acc;
  float* tile;
  const uint8_t** pointers;
  uint8_t* folded_codes;
  uint8_t* folded_rows;
};

extern "C" void soniq_pack(const SoniqPack* pack);
extern "C" void soniq_layer(const SoniqLayer* layer);
