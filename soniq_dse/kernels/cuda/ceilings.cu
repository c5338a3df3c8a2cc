// What a GPU does at most: one operation over and over, on registers, by as many warps as keep its unit busy; and reading. Descriptors
// take their figures from here (benchmarks/_gpu_ceilings.py).
//
// Equation. None: results are written so that nothing is left out. `cycles` has the length of each block's loop in cycles of its
//   multiprocessor, so that a rate per cycle needs no clock.
#include "ptx.h"

struct Ceiling {
  const uint4* in;  // random words: 256 of them; `words` where they are read
  unsigned* out;
  long long* cycles;
  long long words;
  int iterations, unused;
};

constexpr int kChains = 8;  // independent, so that latency hides behind the others

#ifdef SONIQ_SHIM
static long long clock64() {
  static long long ticks = 0;
  return ++ticks;
}
#endif

template <void (*MMA)(int (&)[4], const unsigned (&)[4], const unsigned (&)[2])>
struct Tensor {
  int c[kChains][4];
  unsigned a[4], b[2];
  SONIQ_INLINE void start(uint4 v) {
    a[0] = v.x, a[1] = v.y, a[2] = v.z, a[3] = v.w, b[0] = v.x ^ v.w, b[1] = v.y ^ v.z;
    for (int j = 0; j < kChains; ++j)
      for (int e = 0; e < 4; ++e) c[j][e] = j;
  }
  SONIQ_INLINE void step() {
#pragma unroll
    for (int j = 0; j < kChains; ++j) MMA(c[j], a, b);
  }
  SONIQ_INLINE unsigned result() const {
    unsigned all = 0;
    for (int j = 0; j < kChains; ++j)
      for (int e = 0; e < 4; ++e) all ^= unsigned(c[j][e]);
    return all;
  }
};

struct Vector {
  unsigned x[kChains], y, z;
  SONIQ_INLINE void start(uint4 v) {
    y = v.y, z = v.z;
    for (int j = 0; j < kChains; ++j) x[j] = v.x + unsigned(j) * v.w;
  }
  SONIQ_INLINE unsigned result() const {
    unsigned all = 0;
    for (int j = 0; j < kChains; ++j) all ^= x[j];
    return all;
  }
};

struct Dots : Vector {
  SONIQ_INLINE void step() {
#pragma unroll
    for (int j = 0; j < kChains; ++j) x[j] = dot_u8_u8(y, z, x[j]);
  }
};

struct Counts : Vector {
  SONIQ_INLINE void step() {
#pragma unroll
    for (int j = 0; j < kChains; ++j) x[j] = y ^ unsigned(__popc(x[j]));
  }
};

struct Logic : Vector {
  SONIQ_INLINE void step() {
#pragma unroll
    for (int j = 0; j < kChains; ++j) x[j] = majority(x[j], x[(j + 3) % kChains], y);
  }
};

struct Halves : Vector {
  SONIQ_INLINE void start(uint4 v) {
    y = v.y & 0x83ff83ffu, z = v.z & 0x83ff83ffu;  // tiny: the sums stay finite
    for (int j = 0; j < kChains; ++j) x[j] = (v.x + unsigned(j)) & 0x3fff3fffu;
  }
  SONIQ_INLINE void step() {
#pragma unroll
    for (int j = 0; j < kChains; ++j) x[j] = fma_half2(y, z, x[j]);
  }
};

template <class Op>
SONIQ_DEVICE void repeat(const Ceiling& a) {
  Op op;
  op.start(a.in[threadIdx.x % 256]);
  __syncthreads();
  const long long begin = clock64();
#pragma unroll 4
  for (int i = 0; i < a.iterations; ++i) op.step();
  const unsigned result = op.result();
  a.out[blockIdx.x * blockDim.x + threadIdx.x] = result;
  if (threadIdx.x == 0) a.cycles[blockIdx.x] = clock64() - begin;
}

// Every word `iterations` times over, four loads of a thread at a time.
SONIQ_DEVICE void read(const Ceiling& a) {
  const long long n = (long long)gridDim.x * blockDim.x, first = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  unsigned all = 0;
  for (int i = 0; i < a.iterations; ++i)
    for (long long at = first; at < a.words; at += 4 * n) {
#pragma unroll
      for (int j = 0; j < 4; ++j)
        if (at + j * n < a.words) {
          const uint4 v = load_once(a.in + at + j * n);
          all ^= v.x ^ v.y ^ v.z ^ v.w;
        }
    }
  a.out[first] = all;
}

SONIQ_DEVICE void nothing(const Ceiling&) {}

#ifdef SONIQ_SHIM
#define SONIQ_CUDA_CEILING(symbol, ...)                                                                       \
  extern "C" int symbol(const Ceiling* arguments, int grid_x, int grid_y, int block, unsigned seed) {         \
    return shim::launch([=] { __VA_ARGS__(*arguments); }, grid_x, grid_y, block, seed);                       \
  }
#else
#define SONIQ_CUDA_CEILING(symbol, ...)                                                                       \
  extern "C" __global__ void __launch_bounds__(256) symbol(const Ceiling* __restrict__ arguments) {           \
    __VA_ARGS__(*arguments);                                                                                  \
  }
#endif

SONIQ_CUDA_CEILING(ceiling_bmma_and__sm80, repeat<Tensor<mma_b1_and>>)
SONIQ_CUDA_CEILING(ceiling_imma_s8__sm80, repeat<Tensor<mma_u8_u8>>)
SONIQ_CUDA_CEILING(ceiling_imma_s4__sm80, repeat<Tensor<mma_u4_u4>>)
SONIQ_CUDA_CEILING(ceiling_dp4a__sm61, repeat<Dots>)
SONIQ_CUDA_CEILING(ceiling_popc__sm61, repeat<Counts>)
SONIQ_CUDA_CEILING(ceiling_lop3__sm61, repeat<Logic>)
SONIQ_CUDA_CEILING(ceiling_hfma2__sm61, repeat<Halves>)
SONIQ_CUDA_CEILING(ceiling_read__sm61, read)
SONIQ_CUDA_CEILING(ceiling_nothing__sm61, nothing)
