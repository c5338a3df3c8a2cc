// Numbers of fp32 and 32-bit integers as the epilogue takes them: one at a time, or by vectors of AVX-512 or AVX2. By hand, since
// compilers narrow 32-bit integers to bytes by masks and moves, and load what all rows share once a row.
#pragma once

#include <stdint.h>

#if defined(__AVX2__)
#include <immintrin.h>
// gcc 12 takes the deliberately undefined operands inside its own intrinsics for mistakes of ours.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#define SONIQ_INLINE inline __attribute__((always_inline))
#define SONIQ_INLINE_LAMBDA __attribute__((always_inline))

// None of the arrays of a loop overlap: with so many of them, compilers give up checking that at run time.
#if defined(__clang__)
#define SONIQ_NO_ALIAS _Pragma("clang loop vectorize(assume_safety)")
#else
#define SONIQ_NO_ALIAS _Pragma("GCC ivdep")
#endif

namespace {

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// What a pass needs of numbers, one at a time (compilers vectorise loops over them) or a vector of them.
inline float load(const float* from, float) { return *from; }
inline int32_t load(const int32_t* from, int32_t) { return *from; }
inline float larger_of(float a, float b) { return a > b ? a : b; }
inline float smaller_of(float a, float b) { return a < b ? a : b; }
SONIQ_INLINE float sum_of(int32_t raw, int32_t left, int32_t offset, int32_t right, bool plain) {
  const uint32_t sum = (static_cast<uint32_t>(raw) << (plain ? 0 : left)) + static_cast<uint32_t>(offset);
  return static_cast<float>(static_cast<int32_t>(sum) >> (plain ? 0 : right));
}

#if defined(__AVX512BW__)
#define SONIQ_LANES 16
typedef __m512 Lanes;
typedef __m512i Integers;

typedef __mmask16 Mask;

inline Lanes load(const float* from, Lanes) { return _mm512_loadu_ps(from); }
inline Integers load(const int32_t* from, Integers) { return _mm512_loadu_si512(from); }
inline void store(float* to, Lanes v) { _mm512_storeu_ps(to, v); }
inline Mask mask_of(int64_t live) { return static_cast<Mask>((1u << live) - 1); }
inline Lanes load_some(const float* from, Mask mask, Lanes) { return _mm512_maskz_loadu_ps(mask, from); }
inline Integers load_some(const int32_t* from, Mask mask, Integers) { return _mm512_maskz_loadu_epi32(mask, from); }
inline void store_some(float* to, Mask mask, Lanes v) { _mm512_mask_storeu_ps(to, mask, v); }
inline Lanes all_of(float value) { return _mm512_set1_ps(value); }
inline Lanes larger_of(Lanes a, Lanes b) { return _mm512_max_ps(a, b); }
inline Lanes smaller_of(Lanes a, Lanes b) { return _mm512_min_ps(a, b); }
SONIQ_INLINE Lanes sum_of(Integers raw, int32_t left, Integers offset, int32_t right, bool plain) {
  if (plain) return _mm512_cvtepi32_ps(_mm512_add_epi32(raw, offset));
  const Integers sum = _mm512_add_epi32(_mm512_sll_epi32(raw, _mm_cvtsi32_si128(left)), offset);
  return _mm512_cvtepi32_ps(_mm512_sra_epi32(sum, _mm_cvtsi32_si128(right)));
}

// Rounded to codes: packing saturates at 0 and 255.
inline Integers codes_of(const Lanes (&v)[4]) {
  const Integers low = _mm512_packs_epi32(_mm512_cvtps_epi32(v[0]), _mm512_cvtps_epi32(v[1]));
  const Integers high = _mm512_packs_epi32(_mm512_cvtps_epi32(v[2]), _mm512_cvtps_epi32(v[3]));
  const Integers order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);  // packing goes by 128-bit lanes
  return _mm512_permutexvar_epi32(order, _mm512_packus_epi16(low, high));
}
inline void store_codes(const Lanes (&v)[4], uint8_t* out) { _mm512_storeu_si512(out, codes_of(v)); }
inline void store_some_codes(const Lanes (&v)[4], uint8_t* out, int64_t live) { _mm512_mask_storeu_epi8(out, (1ull << live) - 1, codes_of(v)); }
#elif defined(__AVX2__)
#define SONIQ_LANES 8
typedef __m256 Lanes;
typedef __m256i Integers;

typedef __m256i Mask;

inline Lanes load(const float* from, Lanes) { return _mm256_loadu_ps(from); }
inline Integers load(const int32_t* from, Integers) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }
inline void store(float* to, Lanes v) { _mm256_storeu_ps(to, v); }
inline Mask mask_of(int64_t live) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int32_t>(live)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline Lanes load_some(const float* from, Mask mask, Lanes) { return _mm256_maskload_ps(from, mask); }
inline Integers load_some(const int32_t* from, Mask mask, Integers) { return _mm256_maskload_epi32(from, mask); }
inline void store_some(float* to, Mask mask, Lanes v) { _mm256_maskstore_ps(to, mask, v); }
inline Lanes all_of(float value) { return _mm256_set1_ps(value); }
inline Lanes larger_of(Lanes a, Lanes b) { return _mm256_max_ps(a, b); }
inline Lanes smaller_of(Lanes a, Lanes b) { return _mm256_min_ps(a, b); }
SONIQ_INLINE Lanes sum_of(Integers raw, int32_t left, Integers offset, int32_t right, bool plain) {
  if (plain) return _mm256_cvtepi32_ps(_mm256_add_epi32(raw, offset));
  const Integers sum = _mm256_add_epi32(_mm256_sll_epi32(raw, _mm_cvtsi32_si128(left)), offset);
  return _mm256_cvtepi32_ps(_mm256_sra_epi32(sum, _mm_cvtsi32_si128(right)));
}

// Rounded to codes: packing saturates at 0 and 255.
inline Integers codes_of(const Lanes (&v)[4]) {
  const Integers low = _mm256_packs_epi32(_mm256_cvtps_epi32(v[0]), _mm256_cvtps_epi32(v[1]));
  const Integers high = _mm256_packs_epi32(_mm256_cvtps_epi32(v[2]), _mm256_cvtps_epi32(v[3]));
  const Integers order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);  // packing goes by 128-bit lanes
  return _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), order);
}
inline void store_codes(const Lanes (&v)[4], uint8_t* out) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), codes_of(v)); }
inline void store_some_codes(const Lanes (&v)[4], uint8_t* out, int64_t live) {
  const Integers codes = codes_of(v);
  __builtin_memcpy(out, &codes, live);
}
#endif

// How numbers are read: as many as there are, or those of a mask, beyond which nothing is touched.
struct All {
  template <class F, class V>
  SONIQ_INLINE V operator()(const F* from, V like) const { return load(from, like); }
};
#ifdef SONIQ_LANES
struct Some {
  Mask mask;
  template <class F, class V>
  SONIQ_INLINE V operator()(const F* from, V like) const { return load_some(from, mask, like); }
};
#endif

}  // namespace
