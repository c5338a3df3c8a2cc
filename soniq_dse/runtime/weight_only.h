// A linear layer of fp32 activations on a weight-only kernel: sums of fused multiply-adds, then scale and bias, each rounded on
// its own (formats/weight_only.py).
#pragma once
#include "layer.h"

struct SoniqWeightOnly {
  const SoniqKernel* kernel;
  const float* in;
  int64_t rows, cols, k;
  int64_t ld_packed;      // bytes of a packed row
  int64_t block_columns;  // a whole number of the kernel's tiles
  const uint8_t* weights;
  const float *scale, *bias;
  float* out;
  uint8_t* scratch;  // of the first share; those of the others follow, each scratch_bytes behind the one before
  int64_t scratch_bytes;
};

constexpr int64_t kWeightOnlyRows = 16;  // at once

// Shares are rows, or of few rows columns: which has no influence on any result.
inline void soniq_weight_only(const SoniqWeightOnly& s, SoniqShare share) {
  const int64_t blocks = (s.cols + s.block_columns - 1) / s.block_columns;
  const bool by_row = s.rows >= share.count;
  const int64_t first_row = by_row ? share.begin(s.rows) : 0, end_row = by_row ? share.end(s.rows) : s.rows;
  const int64_t first_block = by_row ? 0 : share.begin(blocks), end_block = by_row ? blocks : share.end(blocks);
  uint8_t* packed = s.scratch + share.index * s.scratch_bytes;
  float* sums = reinterpret_cast<float*>(packed + kWeightOnlyRows * s.ld_packed);
  const uint8_t* pointers[kWeightOnlyRows];
  for (int64_t r = 0; r < kWeightOnlyRows; ++r) pointers[r] = packed + r * s.ld_packed;
  for (int64_t row = first_row; row < end_row; row += kWeightOnlyRows) {
    const int64_t n = end_row - row < kWeightOnlyRows ? end_row - row : kWeightOnlyRows;
    s.kernel->pack_a(n, s.k, s.in + row * s.k, s.k, packed, s.ld_packed);
    for (int64_t block = first_block; block < end_block; ++block) {
      const int64_t c0 = block * s.block_columns, left = s.cols - c0;
      const int64_t cols = left < s.block_columns ? left : s.block_columns;
      s.kernel->run(n, cols, 1, s.k, pointers, kWeightOnlyRows, s.weights + s.kernel->w_bytes(c0, 1, s.k), sums, s.block_columns);
      for (int64_t r = 0; r < n; ++r) {
        const float* __restrict from = sums + r * s.block_columns;
        const float *__restrict scale = s.scale + c0, *__restrict bias = s.bias + c0;
        float* __restrict out = s.out + (row + r) * s.cols + c0;
        for (int64_t c = 0; c < cols; ++c) out[c] = from[c] * scale[c] + bias[c];
      }
    }
  }
}
