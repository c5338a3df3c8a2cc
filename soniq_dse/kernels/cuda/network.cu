// What stands between the layers of a network on a GPU, in fp32 with channels last: codes for a layer whose input no layer writes
// (its first, or one behind a pool), pools, sums.
//
// Equation. Codes as in codes.h; a window's largest, or its sum in row-major order times f32(1 / its size); x + y, then ReLU. Every
//   operation rounds on its own.
// Bound. The shared cache or device memory: one pass over its operands.
#include "codes.h"

struct Pack {
  const float* x;
  int pixels, per_image, pixel_stride, image_stride, groups, n_segments;
  Codes segments[8];
};

struct Pool {
  const float* x;
  float* out;
  int outputs, height, width, channels, out_height, out_width, kernel_height, kernel_width, stride_height, stride_width;
  int pad_height, pad_width;  // of the largest alone: what lies outside is not of the window
  float scale;                // 0: the largest
  int unused;
};

struct Sum {
  const float *x, *y;  // y may be null
  float* out;
  int n, relu;
};

// A warp takes a pixel, 32 channels at a time; blockIdx.y counts segments and, within each, groups.
SONIQ_DEVICE void pack(const Pack& a) {
  const unsigned lane = threadIdx.x % 32, pixel = blockIdx.x * 8 + threadIdx.x / 32, group = blockIdx.y % a.groups;
  const Codes& c = a.segments[blockIdx.y / a.groups];
  if (pixel >= unsigned(a.pixels)) return;
  const float* x = a.x + (long long)(pixel / a.per_image) * a.image_stride + pixel % a.per_image * a.pixel_stride;
  unsigned* packed = c.packed + (long long)group * c.group_words;
  int sum = 0;
  for (unsigned i = 0; i * 32 < unsigned(c.channels); ++i) {
    const unsigned element = i * 32 + lane;
    const int source = element < unsigned(c.channels) ? c.sources[group * c.channels + element] : -1;
    const unsigned code = source < 0 ? 0 : code_of(c, x[source]);
    sum += int(code);
    for (int p = 0; p < c.bits; ++p) {
      const unsigned word = __ballot_sync(0xffffffffu, int(code >> p & 1));
      if (lane == unsigned(p)) packed[word_at(pixel, p, i, c.steps, c.bits)] = word;
    }
    if (c.bits) continue;
    int word = int(code << 8 * (lane % 4));
    word |= __shfl_xor_sync(0xffffffffu, word, 1);
    word |= __shfl_xor_sync(0xffffffffu, word, 2);
    if (lane % 4 == 0) packed[word_at(pixel, 0, i * 8 + lane / 4, c.steps, 1)] = unsigned(word);
  }
#pragma unroll
  for (int distance = 16; distance; distance /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
  if (lane == 0) c.row_sums[group * (a.pixels + 1) + pixel] = sum;
}

SONIQ_DEVICE void pool(const Pool& a) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= a.outputs) return;
  const int channel = i % a.channels, x = i / a.channels % a.out_width, y = i / a.channels / a.out_width % a.out_height;
  const int image = i / a.channels / a.out_width / a.out_height;
  float value = 0.0f;
  bool begun = false;
  for (int tap = 0; tap < a.kernel_height * a.kernel_width; ++tap) {
    const int row = y * a.stride_height - a.pad_height + tap / a.kernel_width, column = x * a.stride_width - a.pad_width + tap % a.kernel_width;
    if (unsigned(row) >= unsigned(a.height) || unsigned(column) >= unsigned(a.width)) continue;
    const float other = a.x[(((long long)image * a.height + row) * a.width + column) * a.channels + channel];
    value = !begun ? other : a.scale == 0.0f ? fmaxf(value, other) : __fadd_rn(value, other);
    begun = true;
  }
  a.out[i] = a.scale == 0.0f ? value : __fmul_rn(value, a.scale);
}

SONIQ_DEVICE void sum(const Sum& a) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= a.n) return;
  const float value = a.y ? __fadd_rn(a.x[i], a.y[i]) : a.x[i];
  a.out[i] = a.relu ? fmaxf(value, 0.0f) : value;
}

// SONIQ_CUDA_PASS(symbol, Arguments, function): blocks of 256 threads; the arguments lie in device memory.
#ifdef SONIQ_SHIM
#define SONIQ_CUDA_PASS(symbol, Arguments, function)                                                          \
  extern "C" int symbol(const Arguments* arguments, int grid_x, int grid_y, int block, unsigned seed) {       \
    return shim::launch([=] { function(*arguments); }, grid_x, grid_y, block, seed);                          \
  }
#else
#define SONIQ_CUDA_PASS(symbol, Arguments, function)                                                          \
  extern "C" __global__ void __launch_bounds__(256) symbol(const Arguments* __restrict__ arguments) {         \
    function(*arguments);                                                                                     \
  }
#endif

SONIQ_CUDA_PASS(pack_f32__sm61_layer, Pack, pack)
SONIQ_CUDA_PASS(pool_f32__sm61_window, Pool, pool)
SONIQ_CUDA_PASS(sum_f32__sm61_plain, Sum, sum)
