// One row on plain integer units, AND and population count of bit planes: for GPUs without native 1-bit tensor units.
//
// Equation. sum u_w u_a = sum_q sum_p 2^(q+p) popcount(w_q & a_p); pairs of planes with the same q + p share a sum.
// Exactness. |out| <= (2^bw - 1)(2^ba - 1) K must fit int32.
// Packing. Weights [channel][step of 4096][plane][lane] of 16 bytes, bit i of word j of a lane being k = 128 lane + 32 j + i of the
//   step; activations [row][step][plane][lane] likewise. Channels are padded to 16.
// Bound. POPC, 16 lanes a cycle: 512 products of bits a cycle and multiprocessor, or device memory.
#include "soniq_cuda.h"

template <int PW, int PA>
struct Popcount {
  static constexpr int warps = 4, channels = 4, c_w = (1 << PW) - 1;

  static SONIQ_INLINE int count(uint4 w, uint4 a) { return __popc(w.x & a.x) + __popc(w.y & a.y) + __popc(w.z & a.z) + __popc(w.w & a.w); }

  static SONIQ_INLINE void run(SONIQ_ARGUMENTS) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, first = blockIdx.x * warps * channels + warp * channels;
    const uint4* w = weights + (long long)first * steps * PW * 32 + lane;
    const uint4* a = activations + (long long)blockIdx.y * steps * PA * 32 + lane;
    int acc[channels][PW + PA - 1] = {};
    for (int step = 0; step < steps; ++step) {
      uint4 codes[PA];
#pragma unroll
      for (int p = 0; p < PA; ++p) codes[p] = a[(step * PA + p) * 32];
#pragma unroll
      for (int i = 0; i < channels; ++i)
#pragma unroll
        for (int q = 0; q < PW; ++q) {
          const uint4 packed = load_once(w + (((long long)i * steps + step) * PW + q) * 32);
#pragma unroll
          for (int p = 0; p < PA; ++p) acc[i][q + p] += count(packed, codes[p]);
        }
    }
#pragma unroll
    for (int i = 0; i < channels; ++i) {
      int dot = 0;
#pragma unroll
      for (int s = 0; s < PW + PA - 1; ++s) dot += acc[i][s] << s;
#pragma unroll
      for (int distance = 16; distance; distance /= 2) dot += __shfl_xor_sync(0xffffffffu, dot, distance);
      const int n = first + i, m = blockIdx.y;
      if (lane == 0 && n < cols) out[(long long)m * cols + n] = finished(dot, c_w, row_sums[m]);
    }
  }
};

SONIQ_CUDA_KERNEL(gemv_u1_z1_s32_1x16x4096__sm61_popc, "lop3_popc", 4096, 2147479552, 128, Popcount<1, 1>)
SONIQ_CUDA_KERNEL(gemv_u2_z1_s32_1x16x4096__sm61_popc, "lop3_popc", 4096, 715825152, 128, Popcount<1, 2>)
SONIQ_CUDA_KERNEL(gemv_u4_z1_s32_1x16x4096__sm61_popc, "lop3_popc", 4096, 143163392, 128, Popcount<1, 4>)
SONIQ_CUDA_KERNEL(gemv_u2_z2_s32_1x16x4096__sm61_popc, "lop3_popc", 4096, 238608384, 128, Popcount<2, 2>)
SONIQ_CUDA_KERNEL(gemv_u4_z2_s32_1x16x4096__sm61_popc, "lop3_popc", 4096, 47718400, 128, Popcount<2, 4>)
SONIQ_CUDA_KERNEL(gemv_u4_z4_s32_1x16x4096__sm61_popc, "lop3_popc", 4096, 9543680, 128, Popcount<4, 4>)
