// The contract of every CPU micro-kernel: what crosses between kernels, the layer driver and Python (ctypes).
//
// Integers. Weights are zero-free of b bits: z_w = 2 u_w - c_w with codes u_w in 0..c_w, c_w = 2^b - 1; or symmetric 8-bit
// integers (s8). Activations travel as unsigned codes u, one byte each. A kernel computes, exactly in int32, one of
//   act token u<b>:  raw[r][n] = sum_{t,k} w[n][t][k] * u[t][r][k]
//   act token z<b>:  raw[r][n] = sum_{t,k} w[n][t][k] * (2 u[t][r][k] - c_a)
// and the driver turns raw into the sum the network asks for by acc = ((raw << left) + offset[n]) >> right:
//   asked z, kernel u:  acc = 2 raw - c_a sum(w)          asked u, kernel z:  acc = (raw + c_a sum(w)) >> 1  (exact: even)
//   asked s8 (u - 128), kernel u8:  acc = raw - 128 sum(w)
// Weight-only kernels (act token f32) read fp32 activations and give fp32.
//
// Padding along k: pack_a pads with code 0, pack_w with code 0 (integer 0 for s8). For z kernels each padded element adds
// c_w * c_a to raw (s8: nothing), for u kernels it adds nothing; the driver's offset removes it.
//
// This header and every ISA file include no C++ standard library header and hold no static initialiser, so that loading a
// library on a machine without the ISA is safe.
#pragma once
#include <stdint.h>

struct SoniqKernel {
  const char* symbol;
  int32_t mr, nr, k_group;  // k_group: packed k is padded to a multiple of this
  int32_t reserved;
  int64_t k_max;            // largest taps * padded k before the accumulator can overflow

  // Bytes of one packed activation row (one tap), and of all packed weights. cols need not be a multiple of nr.
  int64_t (*a_row_bytes)(int64_t k);
  int64_t (*w_bytes)(int64_t cols, int64_t taps, int64_t k);

  // codes[r * ld_codes + k] (uint8; fp32 for act token f32, ld in elements) -> out + r * ld_out bytes (64-byte aligned rows).
  void (*pack_a)(int64_t rows, int64_t k, const void* codes, int64_t ld_codes, uint8_t* out, int64_t ld_out);
  // w[(n * taps + t) * k + i]: the integers themselves (odd for zero-free formats) -> out, 64-byte aligned.
  void (*pack_w)(int64_t cols, int64_t taps, int64_t k, const int8_t* w, uint8_t* out);

  // acc[r * ld_acc + n], r < rows, n < cols padded to nr (int32, or fp32 for acc token f32).
  // a[t * ld_a + r] points to the packed row r of tap t (rows may repeat: that is how convolution gathers its input).
  void (*run)(int64_t rows, int64_t cols, int64_t taps, int64_t k, const uint8_t* const* a, int64_t ld_a,
              const uint8_t* w, void* acc, int64_t ld_acc);
};

// Each kernel file ends with one line per instance,
//   SONIQ_KERNEL(symbol, "feature,feature", k_group, k_max, Implementation)
// which exports the function `symbol` and its descriptor `symbol_kernel`. Implementation has the static functions named above and
// `static constexpr int mr, nr`. The catalog reads the SONIQ_KERNEL lines from the source, so a literal belongs in each field.
// -DSONIQ_SELECT -DSONIQ_SELECT_<symbol>=, keeps only the instances so named: the others cost seconds to compile.
#ifdef SONIQ_SELECT
// A named symbol's macro puts a comma before SONIQ_INSTANCE, which makes it the second argument.
#define SONIQ_SECOND_(first, second, ...) second
#define SONIQ_SECOND(...) SONIQ_SECOND_(__VA_ARGS__)
#define SONIQ_NO_INSTANCE(...)
#define SONIQ_KERNEL(symbol_, ...) SONIQ_SECOND(SONIQ_SELECT_##symbol_ SONIQ_INSTANCE, SONIQ_NO_INSTANCE, )(symbol_, __VA_ARGS__)
#else
#define SONIQ_KERNEL(...) SONIQ_INSTANCE(__VA_ARGS__)
#endif

#define SONIQ_INSTANCE(symbol_, features_, k_group_, k_max_, ...)                                                      \
  extern "C" void symbol_(int64_t rows, int64_t cols, int64_t taps, int64_t k, const uint8_t* const* a, int64_t ld_a, \
                          const uint8_t* w, void* acc, int64_t ld_acc) {                                               \
    __VA_ARGS__::run(rows, cols, taps, k, a, ld_a, w, acc, ld_acc);                                                    \
  }                                                                                                                    \
  extern "C" const SoniqKernel symbol_##_kernel = {#symbol_,             __VA_ARGS__::mr,      __VA_ARGS__::nr, k_group_,  \
                                                   0,                    k_max_,               __VA_ARGS__::a_row_bytes,   \
                                                   __VA_ARGS__::w_bytes, __VA_ARGS__::pack_a,  __VA_ARGS__::pack_w,        \
                                                   symbol_};
