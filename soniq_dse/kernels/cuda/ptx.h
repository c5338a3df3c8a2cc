// Every inline PTX instruction, each beside the C++ that does the same on a CPU (SONIQ_SHIM, host.h), written from the fragment
// tables of the PTX ISA, section mma. Only what is here differs between the two.
#pragma once
#ifdef SONIQ_SHIM
#include "host.h"
#define SONIQ_INLINE inline
#define SONIQ_DEVICE static inline
#else
#define SONIQ_INLINE __device__ __forceinline__
#define SONIQ_DEVICE static __device__ __forceinline__
#endif

// C[16][8] += A[16][8 words] x B[8 words][8], lane by lane as in soniq_cuda.h; lane l has C at row l/4 (c0, c1) and l/4 + 8 (c2, c3),
// columns 2 (l%4) and the next.
#ifdef SONIQ_SHIM
#define SONIQ_MMA(shape_and_types, dot) shim_mma(c, a, b, [](unsigned x, unsigned y) { return dot; })
#else
#define SONIQ_MMA(shape_and_types, dot)                                                                            \
  asm volatile("mma.sync.aligned." shape_and_types " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"         \
               : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])                                                     \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
#endif

SONIQ_DEVICE void mma_b1_and(int (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  SONIQ_MMA("m16n8k256.row.col.s32.b1.b1.s32.and.popc", __builtin_popcount(x & y));
}

SONIQ_DEVICE void mma_u8_u8(int (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  SONIQ_MMA("m16n8k32.row.col.s32.u8.u8.s32", shim_dot4<unsigned char>(x, y));
}

SONIQ_DEVICE void mma_s8_u8(int (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  SONIQ_MMA("m16n8k32.row.col.s32.s8.u8.s32", shim_dot4<signed char>(x, y));
}

SONIQ_DEVICE void mma_u4_u4(int (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  SONIQ_MMA("m16n8k64.row.col.s32.u4.u4.s32", shim_dot8(x, y));
}

// Four products of bytes, added to c: unsigned x unsigned, and signed x unsigned.
SONIQ_DEVICE unsigned dot_u8_u8(unsigned a, unsigned b, unsigned c) {
#ifdef SONIQ_SHIM
  return c + shim_dot4<unsigned char>(a, b);
#else
  unsigned d;
  asm("dp4a.u32.u32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
#endif
}

SONIQ_DEVICE int dot_s8_u8(unsigned a, unsigned b, int c) {
#ifdef SONIQ_SHIM
  return c + shim_dot4<signed char>(a, b);
#else
  int d;
  asm("dp4a.s32.u32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
#endif
}

// The sum and the carry of three bits in every column.
SONIQ_DEVICE unsigned parity(unsigned x, unsigned y, unsigned z) {
#ifdef SONIQ_SHIM
  return x ^ y ^ z;
#else
  unsigned d;
  asm("lop3.b32 %0, %1, %2, %3, 0x96;" : "=r"(d) : "r"(x), "r"(y), "r"(z));
  return d;
#endif
}

SONIQ_DEVICE unsigned majority(unsigned x, unsigned y, unsigned z) {
#ifdef SONIQ_SHIM
  return (x & y) | (z & (x | y));
#else
  unsigned d;
  asm("lop3.b32 %0, %1, %2, %3, 0xe8;" : "=r"(d) : "r"(x), "r"(y), "r"(z));
  return d;
#endif
}

// Two 16-bit floats a word: products added to c, each rounded once; and the sum of both.
SONIQ_DEVICE unsigned fma_half2(unsigned a, unsigned b, unsigned c) {
#ifdef SONIQ_SHIM
  return shim_half2(a, b, c);
#else
  unsigned d;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
#endif
}

SONIQ_DEVICE float sum_half2(unsigned a) {
#ifdef SONIQ_SHIM
  return float(shim_half(a & 0xffff)) + float(shim_half(a >> 16));
#else
  float low, high;
  asm("{.reg .f16 l, h; mov.b32 {l, h}, %2; cvt.f32.f16 %0, l; cvt.f32.f16 %1, h;}" : "=f"(low), "=f"(high) : "r"(a));
  return low + high;
#endif
}

// 16 bytes from global to shared memory, past L1, in the background; wait_copies<N> returns when all but the last N groups are there.
SONIQ_DEVICE void copy_async(uint4* shared, const uint4* global) {
#ifdef SONIQ_SHIM
  shim::copy_later(shared, global);
#else
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"((unsigned)__cvta_generic_to_shared(shared)), "l"(global));
#endif
}

SONIQ_DEVICE void commit_copies() {
#ifdef SONIQ_SHIM
  ++shim::state.current->groups;
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

template <int N>
SONIQ_DEVICE void wait_copies() {
#ifdef SONIQ_SHIM
  shim::finish_copies(N);
#else
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

// Weights are read once: not worth a place in L1.
SONIQ_DEVICE uint4 load_once(const uint4* global) {
#ifdef SONIQ_SHIM
  return *global;
#else
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(global));
  return v;
#endif
}
