// Bit planes on 1-bit tensor units, mma.sync m16n8k256 AND + population count.
//
// Equation. sum u_w u_a = sum_q sum_p 2^(q+p) popcount(w_q & a_p) over planes; one mma per pair of planes and 256 elements.
// Exactness. A count is at most K; |out| <= (2^bw - 1)(2^ba - 1) K must fit int32.
// Packing. Weights [channel tile of 16][step of 256][plane][lane] of 16 bytes; activations [row tile of 8][step][plane][lane] of 8.
// Bound. Tensor units: planes_w x planes_a mma a tile; a block's tile of 256 x 128 plane rows and columns reads 12 KiB from L2 for
//   2^23 products of bits, which on an H200 comes near to what L2 delivers.
#include "mma_ops.h"

template <int PW, int PA>
using Large = MmaTile<Planes<PW, PA>, 4, 2, 4, 8, 4>;
template <int PW, int PA>
using Small = MmaTile<Planes<PW, PA>, 2, 2, 2, 4, 4>;

SONIQ_CUDA_KERNEL(gemm_u1_z1_s32_128x256x256__sm80_bmma, "bmma_and", 256, 2147483392, 256, Large<1, 1>)
SONIQ_CUDA_KERNEL(gemm_u2_z1_s32_64x256x256__sm80_bmma, "bmma_and", 256, 715827712, 256, Large<1, 2>)
SONIQ_CUDA_KERNEL(gemm_u4_z1_s32_32x256x256__sm80_bmma, "bmma_and", 256, 143165440, 256, Large<1, 4>)
SONIQ_CUDA_KERNEL(gemm_u2_z2_s32_64x128x256__sm80_bmma, "bmma_and", 256, 238609152, 256, Large<2, 2>)
SONIQ_CUDA_KERNEL(gemm_u1_z1_s32_64x64x256__sm80_bmma, "bmma_and", 256, 2147483392, 128, Small<1, 1>)
SONIQ_CUDA_KERNEL(gemm_u2_z1_s32_32x64x256__sm80_bmma, "bmma_and", 256, 715827712, 128, Small<1, 2>)
SONIQ_CUDA_KERNEL(gemm_u4_z1_s32_16x64x256__sm80_bmma, "bmma_and", 256, 143165440, 128, Small<1, 4>)
SONIQ_CUDA_KERNEL(gemm_u2_z2_s32_32x32x256__sm80_bmma, "bmma_and", 256, 238609152, 128, Small<2, 2>)
