// What the AVX-512 kernels share: 512-bit accumulators and the prefetch of streamed weights.
#pragma once
#include <immintrin.h>

#include "tile.h"

// gcc 12 takes the deliberately undefined operands inside its own intrinsics for mistakes of ours.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

namespace soniq {

// A 512-bit accumulator has the element type of its operations: gcc 12 spills one that it must convert at every use.
typedef uint8_t Bytes __attribute__((vector_size(64)));
typedef uint16_t Words __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef uint32_t UInts __attribute__((vector_size(64)));
typedef uint64_t ULongs __attribute__((vector_size(64)));

// One-row tiles read each weight once: `lines` cache lines 4 KB ahead, where the hardware's prefetcher stops at page ends
// (on an Intel server core 8 % on weights in L2 and L3; a prefetch past the end of the buffer does nothing).
template <int lines>
SONIQ_INLINE void prefetch_stream(const uint8_t* weights) {
  unroll<lines>([&](auto i) SONIQ_INLINE_LAMBDA {
    _mm_prefetch(reinterpret_cast<const char*>(weights + 4096 + i * 64), _MM_HINT_T0);
  });
}

// body(tap, taps, group, groups) over chunks of at most `most` groups of k: whole taps while one fits, else parts of one.
template <class Body>
SONIQ_INLINE void for_chunks(int64_t taps, int64_t groups, int64_t most, Body&& body) {
  const int64_t parts = ceil_div(groups, most), part = ceil_div(groups, parts);
  const int64_t tap_step = parts > 1 ? 1 : min64(taps, most / groups);
  for (int64_t t = 0; t < taps; t += tap_step)
    for (int64_t g = 0; g < groups; g += part) body(t, min64(tap_step, taps - t), g, min64(part, groups - g));
}

}  // namespace soniq
