// What the AVX2 kernels share: 256-bit vector types and a load of what is left of a row.
#pragma once
#include <immintrin.h>

#include "tile.h"

// gcc 12 takes the deliberately undefined operands inside its own intrinsics for mistakes of ours.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

namespace soniq {

typedef uint8_t Bytes __attribute__((vector_size(32)));
typedef uint16_t Words __attribute__((vector_size(32)));
typedef int32_t Ints __attribute__((vector_size(32)));

// The first `live` of 32 codes, `filler` behind them; nothing past them is read.
SONIQ_INLINE __m256i load_codes(const uint8_t* codes, int64_t live, uint8_t filler = 0) {
  if (live >= 32) return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes));
  alignas(32) uint8_t buffer[32];
  for (int64_t i = 0; i < 32; i++) buffer[i] = i < live ? codes[i] : filler;
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(buffer));
}

SONIQ_INLINE __m256i load(const void* aligned) { return _mm256_load_si256(static_cast<const __m256i*>(aligned)); }

SONIQ_INLINE void store(void* address, __m256i value) { _mm256_storeu_si256(static_cast<__m256i*>(address), value); }

// Four bytes of a packed row in every lane: the activations of four k that eight output channels share.
SONIQ_INLINE __m256i broadcast4(const uint8_t* row) {
  int32_t four;
  __builtin_memcpy(&four, row, 4);
  return _mm256_set1_epi32(four);
}

// One-row tiles read each weight once: `bytes` of them 2 KB ahead, where the hardware's prefetcher stops at page ends. A prefetch
// past the end of the buffer does nothing.
template <int bytes>
SONIQ_INLINE void prefetch_stream(const uint8_t* weights) {
  unroll<bytes / 64>([&](auto i) SONIQ_INLINE_LAMBDA { __builtin_prefetch(weights + 2048 + i * 64); });
}

// 4-bit codes, one a byte, to the zero-free integers 2 code - 15.
SONIQ_INLINE __m256i odd_integers(__m256i codes) {
  const __m128i table = _mm_setr_epi8(-15, -13, -11, -9, -7, -5, -3, -1, 1, 3, 5, 7, 9, 11, 13, 15);
  return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), codes);
}

// Products of codes and weights of few bits, added in pairs to 16-bit sums: for block_steps of them nothing saturates.
template <int WB, int AB>
struct BytePairs {
  static constexpr int c_w = (1 << WB) - 1, c_a = (1 << AB) - 1;
  static constexpr int block_steps = 32767 / (2 * c_w * c_a);

  static SONIQ_INLINE Words products(__m256i codes, __m256i weights) { return (Words)_mm256_maddubs_epi16(codes, weights); }
  static SONIQ_INLINE __m256i widened(Words words, __m256i ones) { return _mm256_madd_epi16((__m256i)words, ones); }
  // Made anew for every block: gcc would keep it in a register through the steps and spill a sum for it.
  static SONIQ_INLINE __m256i ones() {
    __m256i ones = _mm256_set1_epi16(1);
    asm volatile("" : "+x"(ones));
    return ones;
  }
};

}  // namespace soniq
