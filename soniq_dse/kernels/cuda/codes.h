// Codes of a layer's input as layer.h reads them, and how fp32 becomes them: by the layer before (layer.h) or by a pass (network.cu).
//
// Equation. u = min(max(rint(x * inverse + shift), low), high), every operation rounded on its own; halves to even.
// Packing. A row is a pixel, k a segment's channels: bit planes or bytes in the order of mma operand B. What pads k is code 0 and is
//   never written: it is there before the first run, as is the pixel that stands for all outside.
#pragma once
#include "soniq_cuda.h"

struct Codes {
  unsigned* packed;
  int* row_sums;       // [groups][parts][pixels + 1]
  const int* sources;  // of a pass: [groups][channels], where in a pixel's floats each lies; -1: nothing, code 0
  float inverse, shift, low, high;
  int first, channels;  // of a group; first: the place of the first of them among the outputs of the layer before, a multiple of 32
  int bits, steps;      // bits: planes of a code, 0 where it is a byte; steps: of 256 elements or 32 bytes
  int group_words, unused;
};

// Where word `i` of plane `p` of a row lies, `planes` planes and eight words of each a step and row.
SONIQ_DEVICE long long word_at(unsigned row, unsigned p, unsigned i, unsigned steps, unsigned planes) {
  return (((long long)(row / 8) * steps + i / 8) * planes + p) * 64 + (row % 8 * 4 + i % 4) * 2 + i % 8 / 4;
}

SONIQ_DEVICE unsigned code_of(const Codes& c, float x) {
  return unsigned(int(fminf(fmaxf(rintf(__fadd_rn(__fmul_rn(x, c.inverse), c.shift)), c.low), c.high)));
}
