// Stands before the compiler's <immintrin.h>: AVX2, AVX-VNNI and AVX-512 intrinsics in portable C (SIMDe), so that kernels for
// other processors can be run on this one, lane by lane and exactly. What SIMDe 0.7.4 lacks is written here from Intel's
// definitions, over memory: a vector's lanes lie in it in order.
#pragma once
#include <stdint.h>
#include <string.h>

#define SIMDE_NO_NATIVE
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#include <simde/x86/fma.h>
#include <simde/x86/gfni.h>

// Sources ask for it before they define instances that need it; SIMDe must not, which takes it for the processor's.
#define __AVX512VBMI__ 1

typedef simde__mmask8 __mmask8;
typedef simde__mmask16 __mmask16;
typedef simde__mmask64 __mmask64;

namespace portable {

// A vector as N lanes of T.
template <class T, int N>
struct Lanes {
  T lane[N];

  template <class Vector>
  static Lanes of(Vector v) {
    static_assert(sizeof v == sizeof(Lanes));
    Lanes lanes;
    memcpy(&lanes, &v, sizeof v);
    return lanes;
  }
  template <class Vector>
  Vector as() const {
    static_assert(sizeof(Vector) == sizeof(Lanes));
    Vector v;
    memcpy(&v, this, sizeof v);
    return v;
  }
};

// The lanes of `v` one by one as another type.
template <class To, class From, int N, class Result, class Vector>
inline Result convert(Vector v) {
  const Lanes<From, N> from = Lanes<From, N>::of(v);
  Lanes<To, N> to;
  for (int i = 0; i < N; i++) to.lane[i] = static_cast<To>(from.lane[i]);
  return to.template as<Result>();
}

// Those lanes of `v` whose bit is set, cut to 16 bits, to memory; the others' memory is not touched.
template <class From, int N>
inline void store_low_words(void* to, uint32_t mask, __m512i v) {
  const Lanes<From, N> from = Lanes<From, N>::of(v);
  for (int i = 0; i < N; i++)
    if (mask >> i & 1) {
      const uint16_t word = static_cast<uint16_t>(from.lane[i]);
      memcpy(static_cast<char*>(to) + 2 * i, &word, 2);
    }
}

}  // namespace portable

inline __m512i _mm512_cvtepi8_epi32(__m128i v) { return portable::convert<int32_t, int8_t, 16, __m512i>(v); }
inline __m512i _mm512_cvtepu16_epi32(__m256i v) { return portable::convert<int32_t, uint16_t, 16, __m512i>(v); }
inline __m512 _mm512_cvtepi32_ps(__m512i v) { return portable::convert<float, int32_t, 16, __m512>(v); }

inline void _mm512_mask_cvtepi32_storeu_epi16(void* to, __mmask16 mask, __m512i v) {
  portable::store_low_words<int32_t, 16>(to, mask, v);
}
inline void _mm512_mask_cvtepi64_storeu_epi16(void* to, __mmask8 mask, __m512i v) {
  portable::store_low_words<int64_t, 8>(to, mask, v);
}

// Bytes whose bit is clear are not read.
inline __m512i _mm512_maskz_loadu_epi8(__mmask64 mask, const void* from) {
  portable::Lanes<uint8_t, 64> lanes = {};
  for (int i = 0; i < 64; i++)
    if (mask >> i & 1) lanes.lane[i] = static_cast<const uint8_t*>(from)[i];
  return lanes.as<__m512i>();
}

// Bytes whose bit is clear are not touched.
inline void _mm512_mask_storeu_epi8(void* to, __mmask64 mask, __m512i v) {
  const auto lanes = portable::Lanes<uint8_t, 64>::of(v);
  for (int i = 0; i < 64; i++)
    if (mask >> i & 1) static_cast<uint8_t*>(to)[i] = lanes.lane[i];
}

// The sum wraps, as the instruction's does.
inline int _mm512_reduce_add_epi32(__m512i v) {
  const auto lanes = portable::Lanes<uint32_t, 16>::of(v);
  uint32_t sum = 0;
  for (int i = 0; i < 16; i++) sum += lanes.lane[i];
  return static_cast<int>(sum);
}

#undef _mm512_madd_epi16  // SIMDe 0.7.4 gives the name to another function
inline __m512i _mm512_madd_epi16(__m512i a, __m512i b) { return simde_mm512_madd_epi16(a, b); }

inline __m256i _mm256_dpbusd_avx_epi32(__m256i sum, __m256i codes, __m256i weights) {
  return simde_mm256_dpbusd_epi32(sum, codes, weights);
}

inline uint64_t _pdep_u64(uint64_t bits, uint64_t mask) {
  uint64_t spread = 0;
  for (; mask; mask &= mask - 1, bits >>= 1)
    if (bits & 1) spread |= mask & -mask;
  return spread;
}
