// One to eight rows on 1-bit tensor units: bit planes of the activations fill the eight columns of an mma, weights come straight
// from memory into its registers, and nothing is unpacked.
//
// Equation. sum u_w u_a = sum_q sum_p 2^(q+p) popcount(w_q & a_p); column c holds plane c % PA of row c / PA.
// Exactness. |out| <= (2^bw - 1)(2^ba - 1) K must fit int32.
// Packing. Weights as gemm_bmma; activations [tile of 8 / PA rows][step of 256][lane] of 8 bytes.
// Bound. Device memory: a warp loads 512 bytes of weights for an mma and a plane. Eight warps of a block share the steps of 16
//   channels, so that each has several loads under way.
#include "soniq_cuda.h"

template <int PW, int PA>
struct Gemv {
  static constexpr int warps = 8, rows_per_tile = 8 / PA, c_w = (1 << PW) - 1, unroll = 4 / PW > 1 ? 4 / PW : 1;

  // The sum over the planes of a row, which lie in neighbouring columns: in this thread's two, then in its neighbours' in the warp.
  static SONIQ_INLINE int of_row(int low, int high, int lane) {
    if (PA == 1) return 0;
    int sum = (low << 2 * (lane % 4) % PA) + (high << (2 * (lane % 4) + 1) % PA);
#pragma unroll
    for (int distance = 1; distance < PA / 2; distance *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
    return sum;
  }

  static SONIQ_INLINE void run(SONIQ_ARGUMENTS) {
    __shared__ int partial[warps][4][32];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const uint4* w = weights + (long long)blockIdx.x * steps * PW * 32 + lane;
    const uint2* a = (const uint2*)activations + (long long)blockIdx.y * steps * 32 + lane;
    int acc[PW][4] = {};
#pragma unroll unroll
    for (int step = warp; step < steps; step += warps) {
      const uint2 v = a[step * 32];
      const unsigned b[2] = {v.x, v.y};
#pragma unroll
      for (int q = 0; q < PW; ++q) {
        const uint4 packed = load_once(w + (step * PW + q) * 32);
        const unsigned fragment[4] = {packed.x, packed.y, packed.z, packed.w};
        mma_b1_and(acc[q], fragment, b);
      }
    }
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      int sum = 0;
#pragma unroll
      for (int q = 0; q < PW; ++q) sum += acc[q][e] << q;
      partial[warp][e][lane] = sum;
    }
    __syncthreads();
    if (warp) return;
    int dot[4];
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      dot[e] = 0;
#pragma unroll
      for (int other = 0; other < warps; ++other) dot[e] += partial[other][e][lane];
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {  // channels lane / 4 and that + 8
      const int n = blockIdx.x * 16 + lane / 4 + 8 * half, first = blockIdx.y * rows_per_tile;
      const int sum = of_row(dot[2 * half], dot[2 * half + 1], lane);
#pragma unroll
      for (int e = 0; e < 2; ++e) {  // its two columns, of one row where a row has planes
        const int column = 2 * (lane % 4) + e, m = first + column / PA;
        if (column % PA == 0 && n < cols && m < rows)
          out[(long long)m * cols + n] = finished(PA == 1 ? dot[2 * half + e] : sum, c_w, row_sums[m]);
      }
    }
  }
};

SONIQ_CUDA_KERNEL(gemv_u1_z1_s32_8x16x256__sm80_bmma, "bmma_and", 256, 2147483392, 256, Gemv<1, 1>)
SONIQ_CUDA_KERNEL(gemv_u2_z1_s32_4x16x256__sm80_bmma, "bmma_and", 256, 715827712, 256, Gemv<1, 2>)
SONIQ_CUDA_KERNEL(gemv_u4_z1_s32_2x16x256__sm80_bmma, "bmma_and", 256, 143165440, 256, Gemv<1, 4>)
SONIQ_CUDA_KERNEL(gemv_u8_z1_s32_1x16x256__sm80_bmma, "bmma_and", 256, 8421376, 256, Gemv<1, 8>)
SONIQ_CUDA_KERNEL(gemv_u2_z2_s32_4x16x256__sm80_bmma, "bmma_and", 256, 238609152, 256, Gemv<2, 2>)
SONIQ_CUDA_KERNEL(gemv_u4_z2_s32_2x16x256__sm80_bmma, "bmma_and", 256, 47721728, 256, Gemv<2, 4>)
SONIQ_CUDA_KERNEL(gemv_u8_z2_s32_1x16x256__sm80_bmma, "bmma_and", 256, 2807040, 256, Gemv<2, 8>)
SONIQ_CUDA_KERNEL(gemv_u4_z4_s32_2x16x256__sm80_bmma, "bmma_and", 256, 9544192, 256, Gemv<4, 4>)
SONIQ_CUDA_KERNEL(gemv_u8_z4_s32_1x16x256__sm80_bmma, "bmma_and", 256, 561408, 256, Gemv<4, 8>)
