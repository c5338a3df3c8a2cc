// Bytes on 8-bit tensor units, mma.sync m16n8k32: activations as bytes, weights unpacked from 1, 2, 4 or 8 bits by shift and mask.
//
// Equation. Codes: sum u_w u_a by u8 x u8; 8-bit integers: sum w u_a by s8 x u8.
// Exactness. |out| <= (2^bw - 1) 255 K, for s8 127 x 255 K, must fit int32.
// Packing. Field g (of the weight's bits) of every byte of a packed word belongs to mma step g of the 8 / bits steps that the word
//   serves: weights [channel tile of 16][step of 32 x 8/bits][lane] of 16 bytes; activations [row tile of 8][step][mma step][lane] of 8.
// Bound. Tensor units; unpacking takes two instructions for a fragment register that TC mma instructions use.
#include "mma_ops.h"

SONIQ_CUDA_KERNEL(gemm_u8_z1_s32_64x128x256__sm80_imma, "imma_s8", 256, 8421376, 256, MmaTile<Bytes<1>, 4, 2, 2, 4, 2>)
SONIQ_CUDA_KERNEL(gemm_u8_z2_s32_64x128x128__sm80_imma, "imma_s8", 128, 2807168, 256, MmaTile<Bytes<2>, 4, 2, 2, 4, 3>)
SONIQ_CUDA_KERNEL(gemm_u8_z4_s32_64x128x64__sm80_imma, "imma_s8", 64, 561408, 256, MmaTile<Bytes<4>, 4, 2, 2, 4, 4>)
SONIQ_CUDA_KERNEL(gemm_u8_s8_s32_64x128x32__sm80_imma, "imma_s8", 32, 66304, 256, MmaTile<Bytes<8>, 4, 2, 2, 4, 4>)
