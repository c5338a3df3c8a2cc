// One linear layer or convolution over any number of segments of different bits, epilogue included, in one launch.
//
// Equation. An implicit GEMM: row m is an output pixel, k runs over taps and, within a tap, over the channels of a segment. Per segment
//   raw = sum w u, exactly in int32; then, in fp32, each operation rounded on its own, as cpu/layer.h has it:
//   t = 0; per segment in order: t = t + f32((raw << left) + offset[n]) * scale[n];  t = t + bias[n]; relu_first; t = t + residual;
//   relu_last. Codes other than u (2u - c, u - 128) are what `left` and `offset` are for. The result is written as fp32, as the codes that
//   the next layer reads (codes.h), or as both.
// Exactness. Taps times padded channels of a segment within the limit of its bits, as in gemm_bmma and gemm_imma.
// Packing. Activations as those of gemm_bmma or gemm_imma, rows being the pixels of all images and k a segment's channels, and behind
//   them one pixel that stands for every pixel outside; weights likewise, k being [tap][padded channels]. With groups, one after another.
//   Output channels lie as the next layer's segments have them, each from a multiple of 32 on, where codes are written.
// Bound. Tensor units, of tiles of 64 x 64 outputs; a pixel of a tile is read once a tap.
#pragma once
#include "codes.h"
#include "mma_ops.h"

constexpr int kSegments = 8;

struct Segment {
  const uint4 *weights, *activations;
  const int* row_sums;   // [groups][parts][pixels + 1]: a row's sum in parts; not read where weights are plain integers
  const float* scale;    // [groups * cols], as all vectors of the epilogue
  const int* offset;
  int kind;   // 16 x bits of the weights + bits of the activations
  int steps;  // along the channels of a tap
  int left, parts;
};

struct Layer {
  int rows, cols, groups, pixels;  // rows: output pixels of all images; cols: output channels of a group
  int height, width, out_height, out_width;
  int kernel_height, kernel_width, stride_height, stride_width;
  int pad_height, pad_width, dilation_height, dilation_width;
  int relu_first, relu_last, n_segments, n_codes;
  const float *bias, *residual;  // residual: as out, or null
  float* out;                    // [rows][out_channels], or null
  const int* channel_of;         // place -> channel of out and residual, -1: none; or null, where they are the same
  int out_channels, unused;      // of out and residual
  Segment segments[kSegments];
  Codes codes[kSegments];
};

template <class... Ops>
struct LayerKernel {
  static constexpr int tile = 64, most_words = 2560;  // outputs either way; uint4 of shared memory for the stages of any segment
  static constexpr int row_bytes = tile + 4;          // of codes in shared memory: rows begin in different banks

  // The top left of a row's window; a row behind the last one lies outside of every image.
  struct Place {
    int image, y, x;
  };

  template <class Op>
  static constexpr int stage = 32 * 4 * Op::planes_w + 16 * 8 * Op::planes_a * Op::words;
  template <class Op>
  static constexpr int stages = most_words / stage<Op> < 4 ? most_words / stage<Op> : 4;

  struct Tap {
    int dy, dx;
    SONIQ_INLINE Tap(const Layer& layer, int tap)
        : dy(tap / layer.kernel_width * layer.dilation_height), dx(tap % layer.kernel_width * layer.dilation_width) {}
    SONIQ_INLINE int pixel(const Layer& layer, Place place) const {
      const int y = place.y + dy, x = place.x + dx;
      const bool inside = unsigned(y) < unsigned(layer.height) && unsigned(x) < unsigned(layer.width);
      return inside ? place.image + y * layer.width + x : layer.pixels;
    }
  };

  template <class Op>
  static SONIQ_INLINE void segment(const Layer& layer, const Segment& s, const Place* places, int* sums, uint4* stage_words, float (&t)[2][2][4]) {
    using Tile = MmaTile<Op, 2, 4, 2 * Op::planes_w, 2 * Op::planes_a, stages<Op>>;
    constexpr int planes = Op::planes_a * Op::words;  // tiles of activations in a step
    const int blocks = (layer.cols + tile - 1) / tile, group = blockIdx.x / blocks, block = blockIdx.x % blocks;
    const int taps = layer.kernel_height * layer.kernel_width, n_tiles = (layer.cols + 15) / 16;
    const uint4* weights = s.weights + (long long)group * n_tiles * taps * s.steps * Op::planes_w * 32;
    const uint4* activations = s.activations + (long long)group * ((layer.pixels + 8) / 8) * s.steps * planes * 16;
    const auto load = [&](uint4* stage, int step) {
      Tile::template load<32, Tile::tiles_w, Op::planes_w>(stage, weights, block, n_tiles - 1, taps * s.steps, step);
      const Tap tap(layer, step / s.steps);
      const int at = step % s.steps;
#pragma unroll
      for (int first = 0; first < Tile::words_a; first += Tile::threads) {
        const int i = first + threadIdx.x;
        if (first + Tile::threads > Tile::words_a && i >= Tile::words_a) break;
        const int plane = i / 16 % planes, row = i / (16 * planes) * 8 + i / 2 % 8, p = tap.pixel(layer, places[row]);
        copy_async(stage + Tile::words_w + i, activations + (((long long)(p / 8) * s.steps + at) * planes + plane) * 16 + p % 8 * 2 + i % 2);
      }
    };
    int acc[2 * Op::planes_w][2 * Op::planes_a][4] = {};
    __syncthreads();  // places are there, and all have done with the segment before
    if (Op::c_w && threadIdx.x < tile) {
      int sum = 0;
      for (int part = group * s.parts; part < (group + 1) * s.parts; ++part)
        for (int tap = 0; tap < taps; ++tap) sum += s.row_sums[(long long)part * (layer.pixels + 1) + Tap(layer, tap).pixel(layer, places[threadIdx.x])];
      sums[threadIdx.x] = sum;
    }
    Tile::walk(stage_words, taps * s.steps, load, [&](const uint4* stage) { Tile::multiply(acc, stage); });
    Tile::each(acc, [&](unsigned channel, unsigned row, int dot, int i, int j, int e) {
      const int n = group * layer.cols + min(int(block * tile + channel), layer.cols - 1);
      const unsigned raw = unsigned(Op::c_w ? finished(dot, Op::c_w, sums[row]) : dot);
      t[i][j][e] = __fadd_rn(t[i][j][e], __fmul_rn(float(int((raw << s.left) + unsigned(s.offset[n]))), s.scale[n]));
    });
  }

  static SONIQ_INLINE void run(const Layer& layer) {
    __shared__ uint4 stage_words[most_words];
    __shared__ Place places[tile];
    __shared__ int sums[tile];
    if (threadIdx.x < tile) {
      const int m = blockIdx.y * tile + threadIdx.x, area = layer.out_height * layer.out_width;
      Place place = {0, -(1 << 30), 0};
      if (m < layer.rows) {
        place.image = m / area * layer.height * layer.width;
        place.y = m % area / layer.out_width * layer.stride_height - layer.pad_height;
        place.x = m % area % layer.out_width * layer.stride_width - layer.pad_width;
      }
      places[threadIdx.x] = place;
    }
    float t[2][2][4] = {};
    for (int i = 0; i < layer.n_segments; ++i) {
      const Segment& s = layer.segments[i];
      ((s.kind == Ops::kind ? segment<Ops>(layer, s, places, sums, stage_words, t) : void()), ...);
    }
    finish(layer, t, (unsigned char*)stage_words);
  }

  static SONIQ_INLINE const Codes& codes_at(const Layer& layer, int place) {
    int i = layer.n_codes - 1;
    while (layer.codes[i].first > place) --i;
    return layer.codes[i];
  }

  // `codes`: shared memory for those of the tile, a byte each.
  static SONIQ_INLINE void finish(const Layer& layer, const float (&t)[2][2][4], unsigned char* codes) {
    using Outputs = MmaTile<Planes<1, 1>, 2, 4, 2, 2, 2>;  // whose thread has which output does not depend on the bits
    const int blocks = (layer.cols + tile - 1) / tile, group = blockIdx.x / blocks, block = blockIdx.x % blocks;
    const int none[2][2][4] = {};
    __syncthreads();  // all have done with the stages, where the codes go
    Outputs::each(none, [&](unsigned channel, unsigned row, int, int i, int j, int e) {
      const int in_group = block * tile + channel, n = group * layer.cols + in_group, m = blockIdx.y * tile + row;
      if (in_group >= layer.cols || m >= layer.rows) return;
      const int to = layer.channel_of ? layer.channel_of[n] : n;
      float value = __fadd_rn(t[i][j][e], layer.bias[n]);
      if (layer.relu_first) value = fmaxf(value, 0.0f);
      if (to >= 0) {
        const long long at = (long long)m * layer.out_channels + to;
        if (layer.residual) value = __fadd_rn(value, layer.residual[at]);
        if (layer.relu_last) value = fmaxf(value, 0.0f);
        if (layer.out) layer.out[at] = value;
      }
      if (layer.n_codes) codes[row * row_bytes + channel] = to < 0 ? 0 : code_of(codes_at(layer, n), value);
    });
    if (!layer.n_codes) return;
    __syncthreads();
    const int row = threadIdx.x / 2, half = threadIdx.x % 2, place = block * tile + 32 * half, m = blockIdx.y * tile + row;
    if (row < tile && place < layer.cols && m < layer.rows) write(layer, place, m, codes + row * row_bytes + 32 * half);
  }

  // 32 codes of a pixel, all of one segment, as words; the first of a segment's in this tile also writes their sum.
  static SONIQ_INLINE void write(const Layer& layer, int place, int m, const unsigned char* codes) {
    const Codes& c = codes_at(layer, place);
    const unsigned* bytes = (const unsigned*)codes;
    const unsigned i = unsigned(place - c.first) / 32;
    for (int p = 0; p < c.bits; ++p) {
      unsigned word = 0;
#pragma unroll
      for (int j = 0; j < 8; ++j) word |= ((bytes[j] >> p & 0x01010101u) * 0x01020408u >> 24 & 15) << 4 * j;
      c.packed[word_at(m, p, i, c.steps, c.bits)] = word;
    }
    if (!c.bits)
      for (int j = 0; j < 8; ++j) c.packed[word_at(m, 0, i * 8 + j, c.steps, 1)] = bytes[j];
    const int block = place / tile * tile;
    if (place != block && c.first <= block) return;
    const bool both = place == block && place + 32 < layer.cols && &codes_at(layer, place + 32) == &c;
    unsigned sum = 0;
    for (int j = 0; j < (both ? 16 : 8); ++j) sum = dot_u8_u8(bytes[j], 0x01010101u, sum);
    c.row_sums[(long long)(place / tile - c.first / tile) * (layer.rows + 1) + m] = int(sum);
  }
};

// SONIQ_CUDA_LAYER(symbol, "operation", threads, tile, Implementation): ceil(cols / tile) x groups by ceil(rows / tile) blocks; the
// segments it takes are those of its operations, each with the k_group and the k_max of the matrix kernel of these bits.
#ifdef SONIQ_SHIM
#define SONIQ_CUDA_LAYER(symbol, operation, threads, tile, ...)                                                       \
  extern "C" int symbol(const Layer* layer, int grid_x, int grid_y, int block, unsigned seed) {                       \
    return shim::launch([=] { __VA_ARGS__::run(*layer); }, grid_x, grid_y, block, seed);                              \
  }
#else
#define SONIQ_CUDA_LAYER(symbol, operation, threads, tile, ...)                                                       \
  extern "C" __global__ void __launch_bounds__(threads) symbol(const Layer* __restrict__ layer) {                     \
    __VA_ARGS__::run(*layer);                                                                                         \
  }
#endif
