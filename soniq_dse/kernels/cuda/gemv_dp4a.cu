// One row by four-byte dot products on plain integer units: weights masked out of their words, never shifted.
//
// Equation. Field g of a byte, masked in place, is 2^(g bits) u_w; sums of each field are kept apart and shifted once at the end.
// Exactness. A field's sum, K bits/8 (2^bits - 1) 2^(8 - bits) 255 at most, must fit uint32, and |out| int32.
// Packing. Weights [channel][word]: field g of byte j of word i is the code of k = i 32/bits + 4 g + j (8 bits: the integer itself);
//   activations [row][k] bytes. Channels are padded to 16 and words to the 512 bytes that a warp loads at once.
// Bound. Device memory for 1 to 4 bits on GPUs of 64 lanes; a warp serves four channels with one load of activations.
#include "soniq_cuda.h"

template <int BITS>
struct Dp4a {
  static constexpr int fields = 8 / BITS, warps = 4, channels = 4, c_w = BITS == 8 ? 0 : (1 << BITS) - 1;
  static constexpr unsigned mask = 0x01010101u * ((1u << BITS) - 1);

  static SONIQ_INLINE void add(unsigned (&acc)[fields], unsigned word, const unsigned* a) {
#pragma unroll
    for (int g = 0; g < fields; ++g) {
      const unsigned w = word & mask << g * BITS;
      acc[g] = BITS == 8 ? unsigned(dot_s8_u8(w, a[g], int(acc[g]))) : dot_u8_u8(w, a[g], acc[g]);
    }
  }

  static SONIQ_INLINE void run(SONIQ_ARGUMENTS) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, first = blockIdx.x * warps * channels + warp * channels;
    const uint4* w = weights + (long long)first * steps * 32 + lane;
    const uint4* a = activations + ((long long)blockIdx.y * steps * 32 + lane) * fields;
    unsigned acc[channels][fields] = {};
    for (int step = 0; step < steps; ++step) {
      uint4 packed[channels];
#pragma unroll
      for (int i = 0; i < channels; ++i) packed[i] = load_once(w + ((long long)i * steps + step) * 32);
      unsigned codes[4 * fields];  // of the four words, as they follow one another
#pragma unroll
      for (int g = 0; g < fields; ++g) {
        const uint4 v = a[(long long)step * 32 * fields + g];
        codes[4 * g] = v.x, codes[4 * g + 1] = v.y, codes[4 * g + 2] = v.z, codes[4 * g + 3] = v.w;
      }
#pragma unroll
      for (int i = 0; i < channels; ++i) {
        add(acc[i], packed[i].x, codes);
        add(acc[i], packed[i].y, codes + fields);
        add(acc[i], packed[i].z, codes + 2 * fields);
        add(acc[i], packed[i].w, codes + 3 * fields);
      }
    }
#pragma unroll
    for (int i = 0; i < channels; ++i) {
      int dot = 0;
#pragma unroll
      for (int g = 0; g < fields; ++g) dot += int(acc[i][g] >> (BITS == 8 ? 0 : g * BITS));
#pragma unroll
      for (int distance = 16; distance; distance /= 2) dot += __shfl_xor_sync(0xffffffffu, dot, distance);
      const int n = first + i, m = blockIdx.y;
      if (lane == 0 && n < cols) out[(long long)m * cols + n] = c_w ? finished(dot, c_w, row_sums[m]) : dot;
    }
  }
};

SONIQ_CUDA_KERNEL(gemv_u8_z1_s32_1x16x4096__sm61_dp4a, "dp4a", 4096, 1052672, 128, Dp4a<1>)
SONIQ_CUDA_KERNEL(gemv_u8_z2_s32_1x16x2048__sm61_dp4a, "dp4a", 2048, 350208, 128, Dp4a<2>)
SONIQ_CUDA_KERNEL(gemv_u8_z4_s32_1x16x1024__sm61_dp4a, "dp4a", 1024, 140288, 128, Dp4a<4>)
SONIQ_CUDA_KERNEL(gemv_u8_s8_s32_1x16x512__sm61_dp4a, "dp4a", 512, 66048, 128, Dp4a<8>)
