// The contract of every CUDA kernel: what crosses between kernels, the packing (kernels/gpu_pack.py) and a launch.
//
// Integers. Activations are unsigned codes u of 1 to 8 bits, weights zero-free of b bits, z_w = 2 u_w - c_w with codes u_w in
// 0..c_w, c_w = 2^b - 1, or symmetric 8-bit integers (s8). Every matrix kernel computes, exactly in int32,
//   out[m][n] = sum_k w[n][k] * u[m][k],
// for zero-free weights as 2 sum_k u_w u - c_w sum_k u: sums of codes need AND instead of XOR on bit planes, and unsigned bytes
// elsewhere; the sum of a row's codes comes with the packed activations.
//
// Padding along k: both operands pad with code 0, which adds nothing. Channels are padded to 16 and rows to a tile; what lies
// beyond is not stored.
//
// Tiles. mma.sync m16n8 takes rows of eight 32-bit words: 256 elements of 1 bit or 32 of 8. Register r of lane l holds
//   A (weights, 16 channels): channel l/4 + 8 (r & 1), word l%4 + 4 (r >> 1);  B (activations, 8 columns): column l/4, word l%4 + 4 r,
// and packed operands lie in that order, so that a warp loads a tile by one 16-byte (A) or 8-byte (B) access per lane.
//
// Every matrix kernel has the signature SONIQ_ARGUMENTS; a launch has ceil(cols / NR) x ceil(rows / MR) blocks of `threads`.
#pragma once
#include "ptx.h"

#define SONIQ_ARGUMENTS                                                                                             \
  const uint4 *__restrict__ weights, const uint4 *__restrict__ activations, const int *__restrict__ row_sums,       \
      int *__restrict__ out, int rows, int cols, int steps
// steps: padded k over the kernel's k_group.

// Each kernel file ends with one line per instance,
//   SONIQ_CUDA_KERNEL(symbol, "operation", k_group, k_max, threads, Implementation)
// where `operation` is the multiply-accumulate operation of a descriptor (hwmodels) that it needs natively, k_max the largest
// padded k before int32 can overflow, and Implementation has `static void run(SONIQ_ARGUMENTS)`. The catalog reads these lines
// from the source, so a literal belongs in each field.
#ifdef SONIQ_SHIM
#define SONIQ_CUDA_KERNEL(symbol, operation, k_group, k_max, threads, ...)                                       \
  extern "C" int symbol(SONIQ_ARGUMENTS, int grid_x, int grid_y, int block, unsigned seed) {                     \
    auto body = [=] { __VA_ARGS__::run(weights, activations, row_sums, out, rows, cols, steps); };               \
    return shim::launch(body, grid_x, grid_y, block, seed);                                                      \
  }
#else
#define SONIQ_CUDA_KERNEL(symbol, operation, k_group, k_max, threads, ...)                                       \
  extern "C" __global__ void __launch_bounds__(threads) symbol(SONIQ_ARGUMENTS) {                                \
    __VA_ARGS__::run(weights, activations, row_sums, out, rows, cols, steps);                                    \
  }
#endif

// Modulo 2^32: twice the sum of codes may not fit where the result does.
SONIQ_DEVICE int finished(int dot, int c_w, int row_sum) { return int(2u * unsigned(dot) - unsigned(c_w) * unsigned(row_sum)); }
