// A tile on tensor units. Op further says what is multiplied: c_w (0: weights are plain integers); fragment(a, packed, step) makes
// an A fragment, mma(c, a, b) multiplies.
#pragma once
#include "staged_tile.h"

template <class Op, int WR, int WC, int TR, int TC, int STAGES>
struct MmaTile : StagedTile<Op, WR, WC, TR, TC, STAGES> {
  using Tile = StagedTile<Op, WR, WC, TR, TC, STAGES>;

  static SONIQ_INLINE void multiply(int (&acc)[TR][TC][4], const uint4* stage) {
    const unsigned lane = threadIdx.x % 32;
    const uint4* w = Tile::weights_of(stage) + lane;
    const uint2* a = (const uint2*)Tile::activations_of(stage) + lane;
#pragma unroll
    for (int step = 0; step < Op::words; ++step) {
      unsigned b[TC][2];
#pragma unroll
      for (int j = 0; j < TC; ++j) {
        const uint2 v = a[(j * Op::words + step) * 32];
        b[j][0] = v.x;
        b[j][1] = v.y;
      }
#pragma unroll
      for (int i = 0; i < TR; ++i) {
        unsigned fragment[4];
        Op::fragment(fragment, w[i * 32], step);
#pragma unroll
        for (int j = 0; j < TC; ++j) Op::mma(acc[i][j], fragment, b[j]);
      }
    }
  }

  // use(channel, row, dot, i, j, e) for every output of this thread: its place in the block, and in the thread.
  template <class Use>
  static SONIQ_INLINE void each(const int (&acc)[TR][TC][4], Use use) {
    const unsigned lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < TR; i += Op::planes_w)
#pragma unroll
      for (int j = 0; j < TC; j += Op::planes_a)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          int dot = 0;
#pragma unroll
          for (int q = 0; q < Op::planes_w; ++q)
#pragma unroll
            for (int p = 0; p < Op::planes_a; ++p) dot += acc[i + q][j + p][e] * (1 << (q + p));
          use(Tile::channel(i, lane / 4 + 8 * (e >> 1)), Tile::row(j, 2 * (lane % 4) + (e & 1)), dot, i / Op::planes_w, j / Op::planes_a, e);
        }
  }

  static SONIQ_INLINE void run(SONIQ_ARGUMENTS) {
    int acc[TR][TC][4] = {};
    Tile::product(weights, activations, rows, cols, steps, [&](const uint4* stage) { multiply(acc, stage); });
    each(acc, [&](unsigned n, unsigned m, int dot, int, int, int) { Tile::store(n, m, dot, row_sums, out, rows, cols); });
  }
};
