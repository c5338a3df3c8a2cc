// Nibbles on 4-bit tensor units, mma.sync m16n8k64, native on sm_80 to sm_89 only: activations of 4 bits, weights unpacked from 1, 2 or 4.
//
// Equation. Codes: sum u_w u_a by u4 x u4.
// Exactness. |out| <= (2^bw - 1) 15 K must fit int32.
// Packing. As gemm_imma with fields of nibbles: of the 4 / bits steps of 64 elements that a packed word of weights serves, step g takes
//   field g; activations [row tile of 8][step][mma step][lane] of 8 bytes, element i of a word in bits 4 i.
// Bound. Tensor units, twice as fast as on bytes on sm_80; unpacking as in gemm_imma.
#include "mma_ops.h"

SONIQ_CUDA_KERNEL(gemm_u4_z1_s32_64x128x256__sm80_imma4, "imma_s4", 256, 143165440, 256, MmaTile<Nibbles<1>, 4, 2, 2, 4, 3>)
SONIQ_CUDA_KERNEL(gemm_u4_z2_s32_64x128x128__sm80_imma4, "imma_s4", 128, 47721856, 256, MmaTile<Nibbles<2>, 4, 2, 2, 4, 4>)
SONIQ_CUDA_KERNEL(gemm_u4_z4_s32_64x128x64__sm80_imma4, "imma_s4", 64, 9544320, 256, MmaTile<Nibbles<4>, 4, 2, 2, 4, 4>)
