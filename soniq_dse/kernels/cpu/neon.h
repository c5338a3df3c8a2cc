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
    for (int64_t n0 = 0; n0 < cols; n0 += NR) {
      out += pack_head(n0, cols, taps * k, w, out);
      for (int64_t i = 0; i < taps * padded(k) * NR; i++) {
        const int8_t* weight = element(cols, taps, k, w, n0, i);
        *out++ = static_cast<uint8_t>(weight ? *weight : 0);
      }
    }
  }

  // The 16 bytes at place i of a group of k.
  static constexpr int64_t group_bytes = KGroup * NR;
  static SONIQ_INLINE int8x16_t vector(const uint8_t* w, int i) { return vreinterpretq_s8_u8(vld1q_u8(w + i * 16)); }

  // What the sums of channels c .. c + 3 of a panel start from.
  static SONIQ_INLINE int32x4_t start(const uint8_t* panel, int c) {
    return Zero ? vld1q_s32(reinterpret_cast<const int32_t*>(panel) + c) : vdupq_n_s32(0);
  }

  // The head of a panel; its bytes.
  static int64_t pack_head(int64_t n0, int64_t cols, int64_t depth, const int8_t* w, uint8_t* out) {
    if constexpr (Zero != 0)
      for (int64_t n = n0; n < n0 + NR; n++) reinterpret_cast<int32_t*>(out)[n - n0] = n < cols ? Zero * sum(w + n * depth, depth) : 0;
    return head_bytes;
  }

  // Element i of a panel that begins with channel n0; null where it is padding.
  static const int8_t* element(int64_t cols, int64_t taps, int64_t k, const int8_t* w, int64_t n0, int64_t i) {
    const int64_t n = n0 + i / G % NR, t = i / (padded(k) * NR), at = i % (padded(k) * NR) / (G * NR) * G + i % G;
    return n < cols && at < k ? w + (n * taps + t) * k + at : nullptr;
  }

 private:
  static int32_t sum(const int8_t* w, int64_t count) {
    int32_t total = 0;
    for (int64_t i = 0; i < count; i++) total += w[i];
    return total;
  }
};

// The same with 4-bit weights of their own width, for one-row tiles, which are bound by the cache level of their weights: codes
// (w + 15) / 2, of two neighbouring vectors of 16 bytes the first in the low nibbles.
template <int NR, int G, int KGroup, int Zero>
struct NibbleOperands : ByteOperands<NR, G, KGroup, Zero> {
  using Wide = ByteOperands<NR, G, KGroup, Zero>;
  static_assert(KGroup / G % 2 == 0 && NR * G % 16 == 0, "whole pairs of steps of whole vectors");

  static int64_t panel_bytes(int64_t taps, int64_t k) { return Wide::head_bytes + taps * Wide::padded(k) * NR / 2; }
  static int64_t w_bytes(int64_t cols, int64_t taps, int64_t k) { return ceil_div(cols, NR) * panel_bytes(taps, k); }

  static void pack_w(int64_t cols, int64_t taps, int64_t k, const int8_t* w, uint8_t* out) {
    for (int64_t n0 = 0; n0 < cols; n0 += NR) {
      out += Wide::pack_head(n0, cols, taps * k, w, out);
      for (int64_t i = 0; i < taps * Wide::padded(k) * NR / 2; i++) {
        const int64_t first = i / 16 * 32 + i % 16;
        *out++ = static_cast<uint8_t>(code(cols, taps, k, w, n0, first) | code(cols, taps, k, w, n0, first + 16) << 4);
      }
    }
  }

  static constexpr int64_t group_bytes = KGroup * NR / 2;
  static SONIQ_INLINE int8x16_t vector(const uint8_t* w, int i) {
    const int8x16_t levels = {-15, -13, -11, -9, -7, -5, -3, -1, 1, 3, 5, 7, 9, 11, 13, 15};
    const uint8x16_t both = vld1q_u8(w + i / 2 * 16);
    return vqtbl1q_s8(levels, i % 2 ? vshrq_n_u8(both, 4) : vandq_u8(both, vdupq_n_u8(15)));
  }

 private:
  // What pads k meets activations of 0.
  static int code(int64_t cols, int64_t taps, int64_t k, const int8_t* w, int64_t n0, int64_t i) {
    const int8_t* weight = Wide::element(cols, taps, k, w, n0, i);
    return weight ? (*weight + 15) / 2 : 0;
  }
};

}  // namespace soniq
