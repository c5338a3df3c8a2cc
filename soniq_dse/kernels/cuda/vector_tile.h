// A tile on vector units, of the same staged operands as on tensor units. Lane l has channels l % 8 and that + 8 of a tile of 16 and
// rows l / 8 and that + 4 of a tile of 8: two words of each at a time, w and w + 4 of the eight of a tile, as mma order has them side
// by side. Which w comes first differs between lanes, so that the eight that read at a time read from different banks; a sum does
// not depend on it.
//
// Op further has a type Sum (zero at first), add(sum, w0, a0, w1, a1) for two words of each operand, and total(sum).
#pragma once
#include "staged_tile.h"

template <class Op, int WR, int WC, int TR, int TC, int STAGES>
struct VectorTile : StagedTile<Op, WR, WC, TR, TC, STAGES> {
  using Tile = StagedTile<Op, WR, WC, TR, TC, STAGES>;
  using Sum = typename Op::Sum;

  static SONIQ_INLINE void multiply(Sum (&acc)[2 * TR][2 * TC], const uint4* stage) {
    const unsigned c = threadIdx.x % 8, r = threadIdx.x % 32 / 8;
    const uint4* staged_w = Tile::weights_of(stage);
#pragma unroll
    for (unsigned i = 0; i < 4; ++i) {
      const unsigned word = (i + c / 2) % 4;
      const uint2* a = (const uint2*)Tile::activations_of(stage) + r * 4 + word;
      uint2 codes[2 * TC];
#pragma unroll
      for (int j = 0; j < 2 * TC; ++j) codes[j] = a[j / 2 * 32 + j % 2 * 16];
#pragma unroll
      for (int t = 0; t < TR; ++t) {
        const uint4 w = staged_w[t * 32 + c * 4 + word];
#pragma unroll
        for (int j = 0; j < 2 * TC; ++j) {
          Op::add(acc[2 * t][j], w.x, codes[j].x, w.z, codes[j].y);
          Op::add(acc[2 * t + 1][j], w.y, codes[j].x, w.w, codes[j].y);
        }
      }
    }
  }

  static SONIQ_INLINE void run(SONIQ_ARGUMENTS) {
    Sum acc[2 * TR][2 * TC] = {};
    Tile::product(weights, activations, rows, cols, steps, [&](const uint4* stage) { multiply(acc, stage); });
    const unsigned c = threadIdx.x % 8, r = threadIdx.x % 32 / 8;
#pragma unroll
    for (int i = 0; i < 2 * TR; ++i)
#pragma unroll
      for (int j = 0; j < 2 * TC; ++j) {
        if (i / 2 % Op::planes_w || j / 2 % Op::planes_a) continue;
        int dot = 0;
#pragma unroll
        for (int q = 0; q < Op::planes_w; ++q)
#pragma unroll
          for (int p = 0; p < Op::planes_a; ++p) dot += Op::total(acc[i + 2 * q][j + 2 * p]) * (1 << (q + p));
        Tile::store(Tile::channel(i / 2, c + i % 2 * 8), Tile::row(j / 2, r + j % 2 * 4), dot, row_sums, out, rows, cols);
      }
  }
};
