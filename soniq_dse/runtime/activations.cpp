// See activations.h. Multiplications and additions stay apart (built without contraction), as they are in the golden evaluation.
#include "activations.h"

#if defined(__AVX512F__)
#include <immintrin.h>
// gcc 12 takes the deliberately undefined operands inside its own intrinsics for mistakes of ours.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#define SONIQ_INLINE inline __attribute__((always_inline))

namespace {

constexpr int64_t kLanes = 16;
constexpr int kAtOnce = 4;  // vectors, whose chains of operations run side by side
typedef float Lanes __attribute__((vector_size(64)));
typedef uint32_t IntLanes __attribute__((vector_size(64)));

SONIQ_INLINE Lanes larger(Lanes a, Lanes b) {
#if defined(__AVX512F__)
  return _mm512_max_ps(a, b);
#else
  return a > b ? a : b;
#endif
}
SONIQ_INLINE Lanes smaller(Lanes a, Lanes b) {
#if defined(__AVX512F__)
  return _mm512_min_ps(a, b);
#else
  return a < b ? a : b;
#endif
}

// The eighth root of the upper tail of the normal distribution, or of what stands for it, highest power first.
struct Erf {
  static constexpr float end = 5.5f;
  static constexpr float first = -2.95881875e-7f;
  static constexpr float others[] = {7.47955255e-6f,  -6.02576329e-5f, 3.42950152e-5f, 1.50436244e-3f,
                                     -6.71955757e-4f, -3.19280773e-2f, -9.14574116e-2f, 9.17003989e-1f};
};
struct Tanh {
  static constexpr float end = 5.0f;
  static constexpr float first = -3.27614362e-6f;
  static constexpr float others[] = {4.20677934e-5f,  -1.78892442e-4f, 9.97485404e-5f, 1.63099216e-3f,
                                     -7.65037199e-4f, -3.18183079e-2f, -9.14860666e-2f, 9.17006314e-1f};
};

template <class Tail, int N>
SONIQ_INLINE void gelu(Lanes* x) {
  Lanes a[N], p[N];
  for (int i = 0; i < N; ++i) {
    a[i] = smaller((Lanes)((IntLanes)x[i] & 0x7fffffffu), Lanes{} + Tail::end);
    p[i] = Lanes{} + Tail::first;
  }
  for (float coefficient : Tail::others)
    for (int i = 0; i < N; ++i) p[i] = p[i] * a[i] + coefficient;
  for (int power = 0; power < 3; ++power)
    for (int i = 0; i < N; ++i) p[i] = p[i] * p[i];
  for (int i = 0; i < N; ++i) x[i] = larger(x[i], Lanes{}) - a[i] * p[i];
}

// body(vectors) over n numbers, kAtOnce vectors at a time; the last ones are filled up with zeros.
template <class Body>
SONIQ_INLINE void for_vectors(int64_t n, const float* in, float* out, Body&& body) {
  Lanes v[kAtOnce];
  int64_t i = 0;
  for (; i + kAtOnce * kLanes <= n; i += kAtOnce * kLanes) {
    __builtin_memcpy(v, in + i, sizeof v);
    body(v);
    __builtin_memcpy(out + i, v, sizeof v);
  }
  if (i == n) return;
  for (Lanes& zero : v) zero = Lanes{};
  __builtin_memcpy(v, in + i, (n - i) * sizeof(float));
  body(v);
  __builtin_memcpy(out + i, v, (n - i) * sizeof(float));
}

template <class Tail>
void gelu_share(const SoniqGelu& s, SoniqShare share) {
  const int64_t begin = share.begin(s.size);
  for_vectors(share.end(s.size) - begin, s.in + begin, s.out + begin, [](Lanes* v) { gelu<Tail, kAtOnce>(v); });
}

}  // namespace

void soniq_gelu(const SoniqGelu& s, SoniqShare share) { s.is_tanh ? gelu_share<Tanh>(s, share) : gelu_share<Erf>(s, share); }

void soniq_clip(const SoniqClip& s, SoniqShare share) {
  const int64_t begin = share.begin(s.size);
  const Lanes most = Lanes{} + s.most;
  for_vectors(share.end(s.size) - begin, s.in + begin, s.out + begin, [&](Lanes* v) {
    for (int i = 0; i < kAtOnce; ++i) v[i] = smaller(larger(v[i], Lanes{}), most);
  });
}
