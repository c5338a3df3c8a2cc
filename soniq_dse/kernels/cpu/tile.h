// What the kernels of every instruction set share: the walk over row blocks, with tile heights as constants.
//
// A panel is nr output channels with all their taps and k; packed weights are panels one after another. A panel is the outer
// loop, so that its weights stay in the nearest cache while the row blocks pass.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "soniq_kernel.h"

namespace soniq {

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }

#define SONIQ_INLINE inline __attribute__((always_inline))
#define SONIQ_INLINE_LAMBDA __attribute__((always_inline))

// Between the rows of a register tile: without it gcc hoists the loads of all rows to the front and spills accumulators.
#define SONIQ_ROW_BARRIER() asm volatile("" ::: "memory")

template <int N>
struct Index {
  constexpr operator int() const { return N; }
};

// body(Index<0>{}) ... body(Index<N - 1>{}). An array indexed by these constants becomes registers before the optimiser runs;
// one indexed by a loop that is unrolled later stays in memory once there is a barrier in the loop.
template <int N, class Body>
SONIQ_INLINE void unroll(Body&& body) {
  if constexpr (N > 0) {
    unroll<N - 1>(body);
    body(Index<N - 1>{});
  }
}

// tile(Index<rows>{}): the row count as a constant, 1 <= rows <= MR.
template <int MR, class Tile>
SONIQ_INLINE void with_rows(int64_t rows, Tile&& tile) {
  if constexpr (MR > 1) {
    if (rows < MR) return with_rows<MR - 1>(rows, tile);
  }
  tile(Index<MR>{});
}

// tile(Index<R>{}, first_row) over blocks of at most MR rows, all of nearly one height: a block of one or two rows would
// leave the accumulators' latency uncovered.
template <int MR, class Tile>
SONIQ_INLINE void for_row_blocks(int64_t rows, Tile&& tile) {
  for (int64_t first = 0, left = ceil_div(rows, MR); left > 0; left--) {
    const int64_t height = ceil_div(rows - first, left);
    with_rows<MR>(height, [&](auto block) { tile(block, first); });
    first += height;
  }
}

}  // namespace soniq
