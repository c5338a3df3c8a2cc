// Activations to codes as the matrix kernels read them: quantise, pack, and add up each row's codes, in one pass.
//
// Equation. u = min(max(rint(fma(x, scale, shift)), 0), 2^b - 1), rounded to even; row_sums[m] = sum_k u. Elements from k to the
//   padded end are code 0. Rows that fill up a tile are left as they are: nothing of theirs is ever stored.
// Packing. Those of gemm_bmma, gemv_bmma, gemv_popc (bit planes by ballot), gemm_imma and gemv_dp4a (bytes, four lanes a word), gemm_imma4
//   (nibbles, eight lanes a word).
// Bound. Device memory or the shared cache: 4 bytes read an element. A block of 16 warps takes a row, a warp 32 elements at a time.
#include "codes.h"

#define SONIQ_PACK_ARGUMENTS                                                                                        \
  const float *__restrict__ x, unsigned *__restrict__ packed, int *__restrict__ row_sums, int k, int steps, float scale, float shift

// Where word `i` of plane `p` of a row lies. A tile has eight rows, or eight columns of planes of rows, as in codes.h.
template <int BITS>
struct TilePlanes {
  static constexpr int planes = BITS, words = 8, per_word = 32;  // 32-bit words of a plane in a step
  static SONIQ_INLINE long long at(unsigned row, unsigned p, unsigned i, unsigned steps) {
    return word_at(row, p, i, steps, BITS);
  }
};

template <int BITS>
struct ColumnPlanes {
  static constexpr int planes = BITS, words = 8, per_word = 32;
  static SONIQ_INLINE long long at(unsigned row, unsigned p, unsigned i, unsigned steps) {
    constexpr unsigned rows = 8 / BITS;
    return word_at(row / rows * 8 + row % rows * BITS + p, 0, i, steps, 1);
  }
};

template <int BITS>
struct RowPlanes {
  static constexpr int planes = BITS, words = 128, per_word = 32;
  static SONIQ_INLINE long long at(unsigned row, unsigned p, unsigned i, unsigned steps) {
    return (((long long)row * steps + i / 128) * BITS + p) * 128 + i % 128;
  }
};

struct TileBytes {
  static constexpr int planes = 0, words = 1, per_word = 4;  // a step here is one of 32 elements
  static SONIQ_INLINE long long at(unsigned row, unsigned, unsigned i, unsigned steps) {
    return word_at(row, 0, i, steps, 1);
  }
};

struct TileNibbles {
  static constexpr int planes = 0, words = 1, per_word = 8;
  static SONIQ_INLINE long long at(unsigned row, unsigned, unsigned i, unsigned steps) {
    return word_at(row, 0, i, steps / 2, 1);
  }
};

struct RowBytes {
  static constexpr int planes = 0, words = 1, per_word = 4;
  static SONIQ_INLINE long long at(unsigned row, unsigned, unsigned i, unsigned steps) { return (long long)row * steps * 8 + i; }
};

template <class Layout, int BITS>
SONIQ_DEVICE void quantise_and_pack(SONIQ_PACK_ARGUMENTS) {
  constexpr int warps = 16;
  __shared__ int sums[warps];
  const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, row = blockIdx.x;
  int sum = 0;
  for (unsigned i = warp; i < unsigned(steps) * Layout::words; i += warps) {  // 32 elements
    const unsigned element = i * 32 + lane;
    unsigned code = 0;
    if (element < unsigned(k)) {
      const float level = rintf(fmaf(x[(long long)row * k + element], scale, shift));
      code = unsigned(int(fminf(fmaxf(level, 0.0f), float((1 << BITS) - 1))));
    }
    sum += int(code);
    if (Layout::planes) {
#pragma unroll
      for (int p = 0; p < Layout::planes; ++p) {
        const unsigned word = __ballot_sync(0xffffffffu, int(code >> p & 1));
        if (lane == unsigned(p)) packed[Layout::at(row, p, i, steps)] = word;
      }
    } else {
      constexpr unsigned per_word = Layout::per_word;
      int word = int(code << 32 / per_word * (lane % per_word));
#pragma unroll
      for (unsigned distance = 1; distance < per_word; distance *= 2) word |= __shfl_xor_sync(0xffffffffu, word, int(distance));
      if (lane % per_word == 0) packed[Layout::at(row, 0, (i * 32 + lane) / per_word, steps)] = unsigned(word);
    }
  }
#pragma unroll
  for (int distance = 16; distance; distance /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
  if (lane == 0) sums[warp] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int other = 1; other < warps; ++other) sum += sums[other];
    row_sums[row] = sum;
  }
}

// SONIQ_CUDA_PACK(symbol, Layout, bits): pack_f32_<act>__<arch>_<the kernels it serves>; a block of 512 threads a row; `steps` are
// those of the kernel, for bytes and nibbles of 32 elements.
#ifdef SONIQ_SHIM
#define SONIQ_CUDA_PACK(symbol, Layout, bits)                                                                                  \
  extern "C" int symbol(SONIQ_PACK_ARGUMENTS, int grid_x, unsigned seed) {                                                     \
    auto body = [=] { quantise_and_pack<Layout, bits>(x, packed, row_sums, k, steps, scale, shift); };                         \
    return shim::launch(body, grid_x, 1, 512, seed);                                                                           \
  }
#else
#define SONIQ_CUDA_PACK(symbol, Layout, bits)                                                                                  \
  extern "C" __global__ void __launch_bounds__(512) symbol(SONIQ_PACK_ARGUMENTS) {                                             \
    quantise_and_pack<Layout, bits>(x, packed, row_sums, k, steps, scale, shift);                                              \
  }
#endif

SONIQ_CUDA_PACK(pack_f32_u1__sm61_gemmbmma, TilePlanes<1>, 1)
SONIQ_CUDA_PACK(pack_f32_u2__sm61_gemmbmma, TilePlanes<2>, 2)
SONIQ_CUDA_PACK(pack_f32_u4__sm61_gemmbmma, TilePlanes<4>, 4)
SONIQ_CUDA_PACK(pack_f32_u1__sm61_gemvbmma, ColumnPlanes<1>, 1)
SONIQ_CUDA_PACK(pack_f32_u2__sm61_gemvbmma, ColumnPlanes<2>, 2)
SONIQ_CUDA_PACK(pack_f32_u4__sm61_gemvbmma, ColumnPlanes<4>, 4)
SONIQ_CUDA_PACK(pack_f32_u8__sm61_gemvbmma, ColumnPlanes<8>, 8)
SONIQ_CUDA_PACK(pack_f32_u1__sm61_gemvpopc, RowPlanes<1>, 1)
SONIQ_CUDA_PACK(pack_f32_u2__sm61_gemvpopc, RowPlanes<2>, 2)
SONIQ_CUDA_PACK(pack_f32_u4__sm61_gemvpopc, RowPlanes<4>, 4)
SONIQ_CUDA_PACK(pack_f32_u8__sm61_gemmimma, TileBytes, 8)
SONIQ_CUDA_PACK(pack_f32_u4__sm61_gemmimma4, TileNibbles, 4)
SONIQ_CUDA_PACK(pack_f32_u8__sm61_gemvdp4a, RowBytes, 8)
