// A block's tile of a matrix product on tensor units, operands in mma order (soniq_cuda.h), staged through shared memory by
// asynchronous copies. Bit planes of weights are further rows of the product and those of activations further columns, so that a
// thread holds all planes of its elements and weighs them when it is done.
//
// Op says what is multiplied: planes_w, planes_a; `words`: mma steps that one packed word of weights serves; c_w (0: weights are
// plain integers); fragment(a, packed, step) makes an A fragment, mma(c, a, b) multiplies.
// WR x WC warps, each of TR x TC mma tiles.
#pragma once
#include "soniq_cuda.h"

template <class Op, int WR, int WC, int TR, int TC, int STAGES>
struct MmaTile {
  static constexpr int threads = 32 * WR * WC;
  static constexpr int tiles_w = WR * TR, tiles_a = WC * TC;  // of 16 channels x a plane, of 8 rows x a plane
  static constexpr int words_w = 32 * tiles_w, words_a = 16 * Op::words * tiles_a;  // uint4 of a stage
  static_assert(TR % Op::planes_w == 0 && TC % Op::planes_a == 0, "a thread holds all planes");

  // PER_TILE: uint4 of a tile of one operand; TILES: of a stage; what lies beyond the end is any tile, its result is not stored.
  template <unsigned PER_TILE, unsigned TILES, unsigned PLANES>
  static SONIQ_INLINE void load(uint4* stage, const uint4* operand, unsigned block, unsigned last, unsigned steps, unsigned step) {
#pragma unroll
    for (unsigned i = threadIdx.x; i < PER_TILE * TILES; i += threads) {
      const unsigned slot = i / PER_TILE, tile = min(block * (TILES / PLANES) + slot / PLANES, last);
      const unsigned long long at = ((unsigned long long)tile * steps + step) * PLANES + slot % PLANES;
      copy_async(stage + i, operand + at * PER_TILE + i % PER_TILE);
    }
  }

  static SONIQ_INLINE void load(uint4* stage, const uint4* weights, const uint4* activations, int rows, int cols, int steps, int step) {
    load<32, tiles_w, Op::planes_w>(stage, weights, blockIdx.x, (cols + 15) / 16 - 1, steps, step);
    load<16 * Op::words, tiles_a, Op::planes_a>(stage + words_w, activations, blockIdx.y, (rows + 7) / 8 - 1, steps, step);
  }

  static SONIQ_INLINE void multiply(int (&acc)[TR][TC][4], const uint4* stage) {
    const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const uint4* w = stage + warp / WC * TR * 32 + lane;
    const uint2* a = (const uint2*)(stage + words_w) + warp % WC * TC * 32 * Op::words + lane;
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

  static SONIQ_INLINE void store(const int (&acc)[TR][TC][4], const int* row_sums, int* out, int rows, int cols) {
    const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
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
          const unsigned n = ((blockIdx.x * tiles_w + warp / WC * TR + i) / Op::planes_w) * 16 + lane / 4 + 8 * (e >> 1);
          const unsigned m = ((blockIdx.y * tiles_a + warp % WC * TC + j) / Op::planes_a) * 8 + 2 * (lane % 4) + (e & 1);
          if (n < unsigned(cols) && m < unsigned(rows)) out[(unsigned long long)m * cols + n] = Op::c_w ? finished(dot, Op::c_w, row_sums[m]) : dot;
        }
  }

  static SONIQ_INLINE void run(SONIQ_ARGUMENTS) {
    __shared__ uint4 stages[STAGES][words_w + words_a];
    int acc[TR][TC][4] = {};
    for (int s = 0; s < STAGES - 1; ++s) {
      if (s < steps) load(stages[s], weights, activations, rows, cols, steps, s);
      commit_copies();
    }
    for (int step = 0; step < steps; ++step) {
      wait_copies<STAGES - 2>();
      __syncthreads();  // this step is there, and all have done with the one before it
      const int next = step + STAGES - 1;
      if (next < steps) load(stages[next % STAGES], weights, activations, rows, cols, steps, next);
      commit_copies();
      multiply(acc, stages[step % STAGES]);
    }
    store(acc, row_sums, out, rows, cols);
  }
};
