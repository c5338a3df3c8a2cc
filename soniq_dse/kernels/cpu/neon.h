// What the NEON kernels of byte products share: operands that hold one element a byte.
#pragma once
#include <arm_neon.h>

#include "tile.h"

namespace soniq {

// Activations: codes less Zero, [padded k]; 8-bit codes less 128 fit the signed products of NEON, and
//   sum w u = sum w (u - 128) + 128 sum w,
// so that where Zero is not 0 a panel begins with the int32 Zero * sum(w) of its nr channels. Weights: then
// [tap][padded k / G][nr][G] signed bytes. What pads k is 0 on both sides and adds nothing.
template <int NR, int G, int KGroup, int Zero>
struct ByteOperands {
  static constexpr int64_t head_bytes = Zero ? NR * 4 : 0;

  static int64_t padded(int64_t k) { return ceil_div(k, KGroup) * KGroup; }
  static int64_t a_row_bytes(int64_t k) { return padded(k); }
  static int64_t panel_bytes(int64_t taps, int64_t k) { return head_bytes + taps * padded(k) * NR; }
  static int64_t w_bytes(int64_t cols, int64_t taps, int64_t k) { return ceil_div(cols, NR) * panel_bytes(taps, k); }

  static void pack_a(int64_t rows, int64_t k, const void* codes, int64_t ld_codes, uint8_t* out, int64_t ld_out) {
    for (int64_t r = 0; r < rows; r++) {
      const uint8_t* src = static_cast<const uint8_t*>(codes) + r * ld_codes;
      uint8_t* dst = out + r * ld_out;
      for (int64_t i = 0; i < k; i++) dst[i] = static_cast<uint8_t>(src[i] - Zero);
      for (int64_t i = k; i < padded(k); i++) dst[i] = 0;
    }
  }

  static void pack_w(int64_t cols, int64_t taps, int64_t k, const int8_t* w, uint8_t* out) {
    for (int64_t n0 = 0; n0 < cols; n0 += NR, out += taps * padded(k) * NR) {
      if constexpr (Zero != 0) {
        int32_t* head = reinterpret_cast<int32_t*>(out);
        for (int64_t n = n0; n < n0 + NR; n++) *head++ = n < cols ? Zero * sum(w + n * taps * k, taps * k) : 0;
        out += head_bytes;
      }
      for (int64_t i = 0; i < taps * padded(k) * NR; i++) {
        const int64_t n = n0 + i / G % NR, t = i / (padded(k) * NR), at = i % (padded(k) * NR) / (G * NR) * G + i % G;
        out[i] = static_cast<uint8_t>(n < cols && at < k ? w[(n * taps + t) * k + at] : 0);
      }
    }
  }

  // What the sums of channels c .. c + 3 of a panel start from.
  static SONIQ_INLINE int32x4_t start(const uint8_t* panel, int c) {
    return Zero ? vld1q_s32(reinterpret_cast<const int32_t*>(panel) + c) : vdupq_n_s32(0);
  }

 private:
  static int32_t sum(const int8_t* w, int64_t count) {
    int32_t total = 0;
    for (int64_t i = 0; i < count; i++) total += w[i];
    return total;
  }
};

}  // namespace soniq
