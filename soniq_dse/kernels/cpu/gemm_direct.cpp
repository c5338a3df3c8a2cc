// Scalar matrix products for every pair of formats, from one template: what runs where no vector kernel does, and the
// reference that the vector kernels are held against on the same machine.
//
//   raw[r][n] = sum_{t,k} w[n][t][k] * u[t][r][k]     (activation codes u, exactly, in int32)
//   out[r][n] = sum_{t,k} w[n][t][k] * x[t][r][k]     (weight-only: fp32, t then k ascending, multiply then add)
//
// Packing: fields of 1, 2, 4 or 8 bits, element k at bit (k * bits) % 8 of byte k * bits / 8, both operands; zero-free
// weights as codes (w + c) / 2. k is padded to 8 elements, a whole number of bytes at every width; codes of activations are
// padded with 0, so padding adds nothing whatever the weight.
// Exact while k * max|w| * max(u) < 2^31: k_max = floor((2^31 - 1) / (c_w * c_a)), c_w = 127 for s8, down to a multiple of 8.
#include "soniq_kernel.h"

namespace {

constexpr int64_t kGroup = 8;

constexpr int64_t groups(int64_t k) { return (k + kGroup - 1) / kGroup; }

template <int Bits>
inline int field(const uint8_t* packed, int64_t k) {
  constexpr int per_byte = 8 / Bits;
  return (packed[k / per_byte] >> (k % per_byte * Bits)) & ((1 << Bits) - 1);
}

template <int Bits>
inline void put(uint8_t* packed, int64_t k, int code) {
  constexpr int per_byte = 8 / Bits;
  packed[k / per_byte] = static_cast<uint8_t>(packed[k / per_byte] | code << (k % per_byte * Bits));
}

// Packed integers of Bits bits: zero-free, or symmetric where Bits is 8.
template <int Bits>
struct Weights {
  static constexpr int c = (1 << Bits) - 1;

  static int64_t bytes(int64_t cols, int64_t taps, int64_t k) { return cols * taps * groups(k) * Bits; }

  static int code(int8_t w) { return Bits == 8 ? static_cast<uint8_t>(w) : (w + c) / 2; }

  static int value(int code) { return Bits == 8 ? static_cast<int8_t>(code) : 2 * code - c; }

  static void pack(int64_t cols, int64_t taps, int64_t k, const int8_t* w, uint8_t* out) {
    const int64_t row_bytes = groups(k) * Bits;
    for (int64_t row = 0; row < cols * taps; ++row) {
      for (int64_t i = 0; i < row_bytes; ++i) out[row * row_bytes + i] = 0;
      for (int64_t i = 0; i < k; ++i) put<Bits>(out + row * row_bytes, i, code(w[row * k + i]));
    }
  }
};

template <int ActBits, int WgtBits>
struct Direct {
  static constexpr int mr = 1, nr = 1;

  static int64_t a_row_bytes(int64_t k) { return groups(k) * ActBits; }

  static int64_t w_bytes(int64_t cols, int64_t taps, int64_t k) { return Weights<WgtBits>::bytes(cols, taps, k); }

  static void pack_a(int64_t rows, int64_t k, const void* codes, int64_t ld_codes, uint8_t* out, int64_t ld_out) {
    const uint8_t* u = static_cast<const uint8_t*>(codes);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = 0; i < a_row_bytes(k); ++i) out[r * ld_out + i] = 0;
      for (int64_t i = 0; i < k; ++i) put<ActBits>(out + r * ld_out, i, u[r * ld_codes + i]);
    }
  }

  static void pack_w(int64_t cols, int64_t taps, int64_t k, const int8_t* w, uint8_t* out) {
    Weights<WgtBits>::pack(cols, taps, k, w, out);
  }

  static void run(int64_t rows, int64_t cols, int64_t taps, int64_t k, const uint8_t* const* a, int64_t ld_a,
                  const uint8_t* w, void* acc, int64_t ld_acc) {
    const int64_t padded_k = groups(k) * kGroup, tap_bytes = groups(k) * WgtBits;
    int32_t* out = static_cast<int32_t*>(acc);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t n = 0; n < cols; ++n) {
        int32_t sum = 0;
        for (int64_t t = 0; t < taps; ++t) {
          const uint8_t* codes = a[t * ld_a + r];
          const uint8_t* weights = w + (n * taps + t) * tap_bytes;
          for (int64_t i = 0; i < padded_k; ++i) {
            sum += Weights<WgtBits>::value(field<WgtBits>(weights, i)) * field<ActBits>(codes, i);
          }
        }
        out[r * ld_acc + n] = sum;
      }
    }
  }
};

template <int WgtBits>
struct DirectWeightOnly {
  static constexpr int mr = 1, nr = 1;

  static int64_t a_row_bytes(int64_t k) { return groups(k) * kGroup * static_cast<int64_t>(sizeof(float)); }

  static int64_t w_bytes(int64_t cols, int64_t taps, int64_t k) { return Weights<WgtBits>::bytes(cols, taps, k); }

  static void pack_a(int64_t rows, int64_t k, const void* values, int64_t ld_values, uint8_t* out, int64_t ld_out) {
    const float* x = static_cast<const float*>(values);
    for (int64_t r = 0; r < rows; ++r) {
      float* row = reinterpret_cast<float*>(out + r * ld_out);
      for (int64_t i = 0; i < groups(k) * kGroup; ++i) row[i] = i < k ? x[r * ld_values + i] : 0.0f;
    }
  }

  static void pack_w(int64_t cols, int64_t taps, int64_t k, const int8_t* w, uint8_t* out) {
    Weights<WgtBits>::pack(cols, taps, k, w, out);
  }

  static void run(int64_t rows, int64_t cols, int64_t taps, int64_t k, const uint8_t* const* a, int64_t ld_a,
                  const uint8_t* w, void* acc, int64_t ld_acc) {
    const int64_t tap_bytes = groups(k) * WgtBits;
    float* out = static_cast<float*>(acc);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t n = 0; n < cols; ++n) {
        float sum = 0.0f;
        for (int64_t t = 0; t < taps; ++t) {
          const float* x = reinterpret_cast<const float*>(a[t * ld_a + r]);
          const uint8_t* weights = w + (n * taps + t) * tap_bytes;
          for (int64_t i = 0; i < k; ++i) {
            sum += static_cast<float>(Weights<WgtBits>::value(field<WgtBits>(weights, i))) * x[i];
          }
        }
        out[r * ld_acc + n] = sum;
      }
    }
  }
};

}  // namespace

SONIQ_KERNEL(gemm_u1_z1_s32_1x1x8__scalar_direct, "", 8, 2147483640, Direct<1, 1>)
SONIQ_KERNEL(gemm_u1_z2_s32_1x1x8__scalar_direct, "", 8, 715827880, Direct<1, 2>)
SONIQ_KERNEL(gemm_u1_z4_s32_1x1x8__scalar_direct, "", 8, 143165576, Direct<1, 4>)
SONIQ_KERNEL(gemm_u1_s8_s32_1x1x8__scalar_direct, "", 8, 16909320, Direct<1, 8>)
SONIQ_KERNEL(gemm_u2_z1_s32_1x1x8__scalar_direct, "", 8, 715827880, Direct<2, 1>)
SONIQ_KERNEL(gemm_u2_z2_s32_1x1x8__scalar_direct, "", 8, 238609288, Direct<2, 2>)
SONIQ_KERNEL(gemm_u2_z4_s32_1x1x8__scalar_direct, "", 8, 47721856, Direct<2, 4>)
SONIQ_KERNEL(gemm_u2_s8_s32_1x1x8__scalar_direct, "", 8, 5636440, Direct<2, 8>)
SONIQ_KERNEL(gemm_u4_z1_s32_1x1x8__scalar_direct, "", 8, 143165576, Direct<4, 1>)
SONIQ_KERNEL(gemm_u4_z2_s32_1x1x8__scalar_direct, "", 8, 47721856, Direct<4, 2>)
SONIQ_KERNEL(gemm_u4_z4_s32_1x1x8__scalar_direct, "", 8, 9544368, Direct<4, 4>)
SONIQ_KERNEL(gemm_u4_s8_s32_1x1x8__scalar_direct, "", 8, 1127288, Direct<4, 8>)
SONIQ_KERNEL(gemm_u8_z1_s32_1x1x8__scalar_direct, "", 8, 8421504, Direct<8, 1>)
SONIQ_KERNEL(gemm_u8_z2_s32_1x1x8__scalar_direct, "", 8, 2807168, Direct<8, 2>)
SONIQ_KERNEL(gemm_u8_z4_s32_1x1x8__scalar_direct, "", 8, 561432, Direct<8, 4>)
SONIQ_KERNEL(gemm_u8_s8_s32_1x1x8__scalar_direct, "", 8, 66304, Direct<8, 8>)
SONIQ_KERNEL(gemm_f32_z2_f32_1x1x8__scalar_direct, "", 8, 1048576, DirectWeightOnly<2>)
SONIQ_KERNEL(gemm_f32_z4_f32_1x1x8__scalar_direct, "", 8, 1048576, DirectWeightOnly<4>)
SONIQ_KERNEL(gemm_f32_s8_f32_1x1x8__scalar_direct, "", 8, 1048576, DirectWeightOnly<8>)
