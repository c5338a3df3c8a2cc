// A block's tile of a matrix product: operands in mma order (soniq_cuda.h), staged through shared memory by asynchronous copies.
// Bit planes of weights are further rows of the product and those of activations further columns, so that a thread holds all
// planes of its elements and weighs them when it is done.
//
// Op: planes_w, planes_a; `words`: tiles of 256 bits of activations that one packed word of weights serves.
// WR x WC warps, each of TR x TC tiles of 16 channels x 8 rows.
#pragma once
#include "soniq_cuda.h"

template <class Op, int WR, int WC, int TR, int TC, int STAGES>
struct StagedTile {
  static constexpr int threads = 32 * WR * WC;
  static constexpr int tiles_w = WR * TR, tiles_a = WC * TC;  // of 16 channels x a plane, of 8 rows x a plane
  static constexpr int words_w = 32 * tiles_w, words_a = 16 * Op::words * tiles_a;  // uint4 of a stage
  static constexpr int stage_words = words_w + words_a;
  static_assert(TR % Op::planes_w == 0 && TC % Op::planes_a == 0, "a thread holds all planes");

  // PER_TILE: uint4 of a tile of one operand; TILES: of a stage; what lies beyond the end is any tile, its result is not stored.
  template <unsigned PER_TILE, unsigned TILES, unsigned PLANES>
  static SONIQ_INLINE void load(uint4* stage, const uint4* operand, unsigned block, unsigned last, unsigned steps, unsigned step) {
    constexpr unsigned n = PER_TILE * TILES;
#pragma unroll
    for (unsigned first = 0; first < n; first += threads) {  // of which the compiler sees that most are for every thread
      const unsigned i = first + threadIdx.x;
      if (first + threads > n && i >= n) break;
      const unsigned slot = i / PER_TILE, tile = min(block * (TILES / PLANES) + slot / PLANES, last);
      const unsigned at = (tile * steps + step) * PLANES + slot % PLANES;  // in uint4: an operand is below 64 GiB
      copy_async(stage + i, operand + at * PER_TILE + i % PER_TILE);
    }
  }

  static SONIQ_INLINE void load(uint4* stage, const uint4* weights, const uint4* activations, int rows, int cols, int steps, int step) {
    load<32, tiles_w, Op::planes_w>(stage, weights, blockIdx.x, (cols + 15) / 16 - 1, steps, step);
    load<16 * Op::words, tiles_a, Op::planes_a>(stage + words_w, activations, blockIdx.y, (rows + 7) / 8 - 1, steps, step);
  }

  // Every step of k in turn: load(stage, step) starts its copies, multiply(stage) uses them. `stages` has STAGES * stage_words.
  template <class Load, class Multiply>
  static SONIQ_INLINE void walk(uint4* stages, int steps, Load load_step, Multiply multiply) {
    for (int s = 0; s < STAGES - 1; ++s) {
      if (s < steps) load_step(stages + s * stage_words, s);
      commit_copies();
    }
    for (int step = 0; step < steps; ++step) {
      wait_copies<STAGES - 2>();
      __syncthreads();  // this step is there, and all have done with the one before it
      const int next = step + STAGES - 1;
      if (next < steps) load_step(stages + unsigned(next) % STAGES * stage_words, next);
      commit_copies();
      multiply(stages + unsigned(step) % STAGES * stage_words);
    }
  }

  template <class Multiply>
  static SONIQ_INLINE void product(const uint4* weights, const uint4* activations, int rows, int cols, int steps, Multiply multiply) {
    __shared__ uint4 stages[STAGES * stage_words];
    walk(stages, steps, [=](uint4* stage, int step) { load(stage, weights, activations, rows, cols, steps, step); }, multiply);
  }

  // Of a stage: this warp's weights and activations.
  static SONIQ_INLINE const uint4* weights_of(const uint4* stage) { return stage + threadIdx.x / 32 / WC * TR * 32; }
  static SONIQ_INLINE const uint4* activations_of(const uint4* stage) {
    return stage + words_w + threadIdx.x / 32 % WC * TC * 16 * Op::words;
  }

  // Of the block's outputs: the channel of row r of this warp's tile i, the row of column c of its tile j.
  static SONIQ_INLINE unsigned channel(int i, unsigned r) { return (threadIdx.x / 32 / WC * TR + i) / Op::planes_w * 16 + r; }
  static SONIQ_INLINE unsigned row(int j, unsigned c) { return (threadIdx.x / 32 % WC * TC + j) / Op::planes_a * 8 + c; }

  static SONIQ_INLINE void store(unsigned channel, unsigned row, int dot, const int* row_sums, int* out, int rows, int cols) {
    const unsigned n = blockIdx.x * (tiles_w / Op::planes_w * 16) + channel, m = blockIdx.y * (tiles_a / Op::planes_a * 8) + row;
    if (n < unsigned(cols) && m < unsigned(rows)) out[(unsigned long long)m * cols + n] = Op::c_w ? finished(dot, Op::c_w, row_sums[m]) : dot;
  }
};
