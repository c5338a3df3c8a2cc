// A whole network in one call: a list of steps over static buffers, channels last, no allocation.
// The arithmetic of every step is that of the golden evaluation (formats/network.py), operation by operation.
//
// Threads walk the list together, sharing every step (team.h). No result depends on their number, since every element is
// computed by one thread in one order.
#include <time.h>

#include <new>

#include "activations.h"
#include "layer.h"
#include "team.h"
#include "tokens.h"
#include "weight_only.h"

struct SoniqQuantize {  // fp32 -> codes; channel c of a pixel is read at source[c], or at c where source is null
  const float* in;
  int64_t batch, pixels, channels, batch_stride, pixel_stride;
  const int64_t* source;
  uint8_t* out;
  const float *inverse, *shift, *lo, *hi;
};

struct SoniqCopy {  // fp32 -> fp32 with another order or layout
  const float* in;
  int64_t batch, pixels, channels, batch_stride, pixel_stride;
  const int64_t* source;
  float* out;
  int64_t out_pixel_stride, out_channel_stride;
};

struct SoniqPool {
  const void* in;
  void* out;
  int64_t batch, height, width, channels, out_height, out_width;
  int64_t kernel_height, kernel_width, stride_height, stride_width, pad_height, pad_width;
  float scale;  // of averages
};

struct SoniqElementwise {
  const float *first, *second;  // second is null for relu
  float* out;
  int64_t size;
};

struct SoniqStep {
  int64_t kind;
  const void* arguments;
};

struct SoniqAlone {  // steps with too little work to share: one thread does them all, and nobody waits between them
  const SoniqStep* steps;
  int64_t count;
};

namespace {

enum Kind : int64_t {
  kPack, kLayer, kQuantize, kCopy, kMaxPoolCodes, kMaxPool, kAveragePool, kRelu, kAdd, kEmbedding, kAddConstant, kLayerNorm, kAttention,
  kWeightOnly, kKeep, kAlone, kGelu, kClip, kPrepend
};

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

void quantize_plane(const float* __restrict in, int64_t n, uint8_t* __restrict out, float inverse, float shift, float lo,
                    float hi) {
  for (int64_t i = 0; i < n; ++i) out[i] = soniq_code(in[i], inverse, shift, lo, hi);
}

void quantize_pixel(const SoniqQuantize& q, const float* __restrict in, uint8_t* __restrict out) {
  const float *__restrict inverse = q.inverse, *__restrict shift = q.shift, *__restrict lo = q.lo, *__restrict hi = q.hi;
  if (q.source == nullptr) {
    for (int64_t c = 0; c < q.channels; ++c) out[c] = soniq_code(in[c], inverse[c], shift[c], lo[c], hi[c]);
  } else {
    for (int64_t c = 0; c < q.channels; ++c) out[c] = soniq_code(in[q.source[c]], inverse[c], shift[c], lo[c], hi[c]);
  }
}

typedef uint8_t Bytes16 __attribute__((vector_size(16)));

// in[c][p] -> out[p][c], 16 x 16: four rounds of interleaving the upper half of the rows with the lower.
inline void transpose(const uint8_t* in, int64_t ld_in, Bytes16* out) {
  Bytes16 rows[16];
  for (int r = 0; r < 16; ++r) __builtin_memcpy(&rows[r], in + r * ld_in, 16);
  for (int round = 0; round < 4; ++round) {
    for (int r = 0; r < 8; ++r) {
      out[2 * r] = __builtin_shufflevector(rows[r], rows[r + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
      out[2 * r + 1] = __builtin_shufflevector(rows[r], rows[r + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    }
    for (int r = 0; r < 16; ++r) rows[r] = out[r];
  }
}

// codes[c][p] of up to 16 channels and n pixels to channels last. Whole vectors are stored where what follows the channels
// is written later, which is not so for the last pixels.
void interleave(const uint8_t* codes, int64_t ld_codes, int64_t channels, int64_t n, uint8_t* out, int64_t ld_out) {
  const int64_t safe = n - ceil_div(16, ld_out);
  int64_t p = 0;
  for (Bytes16 pixels[16]; p + 16 <= safe && (channels == 16 || channels == ld_out); p += 16) {
    transpose(codes + p, ld_codes, pixels);
    for (int64_t i = 0; i < 16; ++i) __builtin_memcpy(out + (p + i) * ld_out, &pixels[i], 16);
  }
  for (; p < n; ++p)
    for (int64_t c = 0; c < channels; ++c) out[p * ld_out + c] = codes[c * ld_codes + p];
}

// n pixels of an image that has its channels first: planes to codes, and these to channels last, a piece in L1 at a time.
void quantize_planes(const SoniqQuantize& q, const float* in, int64_t n, uint8_t* out) {
  constexpr int64_t pixels = 512, channels = 16;
  alignas(64) uint8_t codes[channels][pixels] = {};
  for (int64_t p0 = 0; p0 < n; p0 += pixels)
    for (int64_t c0 = 0; c0 < q.channels; c0 += channels) {
      const int64_t p_count = smaller(pixels, n - p0), c_count = smaller(channels, q.channels - c0);
      for (int64_t c = 0; c < c_count; ++c) {
        const int64_t at = c0 + c;
        quantize_plane(in + q.source[at] + p0, p_count, codes[c], q.inverse[at], q.shift[at], q.lo[at], q.hi[at]);
      }
      interleave(codes[0], pixels, c_count, p_count, out + p0 * q.channels + c0, q.channels);
    }
}

// body(image, first pixel, pixels) over a share of batch x pixels.
template <typename Body>
void for_pixels(int64_t batch, int64_t pixels, SoniqShare share, Body&& body) {
  const int64_t end = share.end(batch * pixels);
  for (int64_t at = share.begin(batch * pixels), count; at < end; at += count) {
    count = smaller(pixels - at % pixels, end - at);
    body(at / pixels, at % pixels, count);
  }
}

void quantize(const SoniqQuantize& q, SoniqShare share) {
  for_pixels(q.batch, q.pixels, share, [&](int64_t image, int64_t first, int64_t n) {
    const float* in = q.in + image * q.batch_stride + first * q.pixel_stride;
    uint8_t* out = q.out + (image * q.pixels + first) * q.channels;
    if (q.pixel_stride == 1 && q.source != nullptr) return quantize_planes(q, in, n, out);
    for (int64_t p = 0; p < n; ++p) quantize_pixel(q, in + p * q.pixel_stride, out + p * q.channels);
  });
}

void copy(const SoniqCopy& s, SoniqShare share) {
  for_pixels(s.batch, s.pixels, share, [&](int64_t image, int64_t first, int64_t n) {
    const float* in = s.in + image * s.batch_stride;
    float* out = s.out + image * s.pixels * s.channels;
    if (s.pixel_stride == s.channels && s.out_channel_stride == 1) {  // channels last on both sides
      int64_t straight = 0;
      while (straight < s.channels && s.source[straight] == straight) ++straight;
      for (int64_t p = first; p < first + n; ++p) {
        const float* from = in + p * s.pixel_stride;
        float* to = out + p * s.out_pixel_stride;
        __builtin_memcpy(to, from, straight * sizeof(float));
        for (int64_t c = straight; c < s.channels; ++c) to[c] = from[s.source[c]];
      }
      return;
    }
    constexpr int64_t pixels = 16;  // so many lie in a cache line on the side that has its channels first
    for (int64_t p0 = first; p0 < first + n; p0 += pixels) {
      const int64_t end = smaller(p0 + pixels, first + n);
      for (int64_t c = 0; c < s.channels; ++c) {
        for (int64_t p = p0; p < end; ++p) {
          out[p * s.out_pixel_stride + c * s.out_channel_stride] = in[p * s.pixel_stride + s.source[c]];
        }
      }
    }
  });
}

struct Largest {
  template <typename T>
  static T join(T a, T b) { return a > b ? a : b; }
};

struct Sum {
  template <typename T>
  static T join(T a, T b) { return a + b; }
};

template <typename T, typename Op>
void join_pixel(int64_t channels, const T* __restrict in, T* __restrict out) {
  for (int64_t c = 0; c < channels; ++c) out[c] = Op::join(out[c], in[c]);
}

// Joins a window of rows x columns pixels, element by element in row-major order.
template <typename T, typename Op>
void pool_window(const SoniqPool& s, const T* in, int64_t rows, int64_t columns, T* out) {
  __builtin_memcpy(out, in, s.channels * sizeof(T));
  for (int64_t x = 1; x < columns; ++x) join_pixel<T, Op>(s.channels, in + x * s.channels, out);
  for (int64_t y = 1; y < rows; ++y) {
    const T* row = in + y * s.width * s.channels;
    for (int64_t x = 0; x < columns; ++x) join_pixel<T, Op>(s.channels, row + x * s.channels, out);
  }
}

// What of a window lies inside: [first, first + size) of an axis.
struct Span {
  Span(int64_t at, int64_t kernel, int64_t extent)
      : first(at > 0 ? at : 0), size((at + kernel < extent ? at + kernel : extent) - first) {}
  int64_t first, size;
};

template <typename T, typename Op>
void pool(const SoniqPool& s, SoniqShare share) {
  for_pixels(s.batch, s.out_height * s.out_width, share, [&](int64_t image, int64_t first, int64_t n) {
    const T* in = static_cast<const T*>(s.in) + image * s.height * s.width * s.channels;
    T* out = static_cast<T*>(s.out) + (image * s.out_height * s.out_width + first) * s.channels;
    for (int64_t p = first; p < first + n; ++p, out += s.channels) {
      const Span rows(p / s.out_width * s.stride_height - s.pad_height, s.kernel_height, s.height);
      const Span columns(p % s.out_width * s.stride_width - s.pad_width, s.kernel_width, s.width);
      pool_window<T, Op>(s, in + (rows.first * s.width + columns.first) * s.channels, rows.size, columns.size, out);
    }
  });
}

void average_pool(const SoniqPool& s, SoniqShare share) {
  pool<float, Sum>(s, share);
  const int64_t pixels = s.batch * s.out_height * s.out_width;
  float* out = static_cast<float*>(s.out);
  for (int64_t i = share.begin(pixels) * s.channels; i < share.end(pixels) * s.channels; ++i) out[i] = out[i] * s.scale;
}

void relu(const SoniqElementwise& s, SoniqShare share) {
  for (int64_t i = share.begin(s.size); i < share.end(s.size); ++i) s.out[i] = s.first[i] > 0.0f ? s.first[i] : 0.0f;
}

void add(const SoniqElementwise& s, SoniqShare share) {
  for (int64_t i = share.begin(s.size); i < share.end(s.size); ++i) s.out[i] = s.first[i] + s.second[i];
}

template <typename T>
const T& as(const SoniqStep& step) { return *static_cast<const T*>(step.arguments); }

void run_step(const SoniqStep& step, SoniqShare share);

void run_alone(const SoniqAlone& s, SoniqShare share) {
  if (share.index != 0) return;
  for (int64_t i = 0; i < s.count; ++i)
    for (int64_t part = 0; part < share.count; ++part) run_step(s.steps[i], {part, share.count});
}

void run_step(const SoniqStep& step, SoniqShare share) {
  switch (step.kind) {
    case kPack: return soniq_pack_share(as<SoniqPack>(step), share);
    case kLayer: return soniq_layer_share(as<SoniqLayer>(step), share.index);
    case kQuantize: return quantize(as<SoniqQuantize>(step), share);
    case kCopy: return copy(as<SoniqCopy>(step), share);
    case kMaxPoolCodes: return pool<uint8_t, Largest>(as<SoniqPool>(step), share);
    case kMaxPool: return pool<float, Largest>(as<SoniqPool>(step), share);
    case kAveragePool: return average_pool(as<SoniqPool>(step), share);
    case kRelu: return relu(as<SoniqElementwise>(step), share);
    case kAdd: return add(as<SoniqElementwise>(step), share);
    case kEmbedding: return soniq_embedding(as<SoniqEmbedding>(step), share);
    case kAddConstant: return soniq_add_constant(as<SoniqAddConstant>(step), share);
    case kLayerNorm: return soniq_layer_norm(as<SoniqLayerNorm>(step), share);
    case kAttention: return soniq_attention(as<SoniqAttention>(step), share);
    case kKeep: return soniq_keep(as<SoniqKeep>(step), share);
    case kGelu: return soniq_gelu(as<SoniqGelu>(step), share);
    case kClip: return soniq_clip(as<SoniqClip>(step), share);
    case kPrepend: return soniq_prepend(as<SoniqPrepend>(step), share);
    case kWeightOnly: return soniq_weight_only(as<SoniqWeightOnly>(step), share);
    case kAlone: return run_alone(as<SoniqAlone>(step), share);
  }
}

double seconds(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

void run_share(const void* steps, int64_t step, SoniqShare share) { run_step(static_cast<const SoniqStep*>(steps)[step], share); }

}  // namespace

// A team of `threads`, the caller being one of them; null where the system gives no more threads.
extern "C" soniq::Team* soniq_team_new(int64_t threads) {
  soniq::Team* team = new (std::nothrow) soniq::Team(threads);
  if (team == nullptr || team->start()) return team;
  delete team;
  return nullptr;
}

extern "C" void soniq_team_delete(soniq::Team* team) { delete team; }

extern "C" void soniq_run(soniq::Team* team, const SoniqStep* steps, int64_t n_steps) { team->run(run_share, steps, n_steps); }

// Seconds of each of `repeats` runs: of the thread's CPU clock for one thread, else of the wall clock.
static double seconds_of(soniq::Team* team, const SoniqStep* steps, int64_t n_steps, int64_t runs, clockid_t clock) {
  const double start = seconds(clock);
  for (int64_t i = 0; i < runs; ++i) soniq_run(team, steps, n_steps);
  return seconds(clock) - start;
}

// Seconds of a run, [repeats]. Short ones are timed by the dozen: reading the thread's clock takes as long as a small layer.
extern "C" void soniq_time_runs(soniq::Team* team, const SoniqStep* steps, int64_t n_steps, int64_t repeats, double* run_seconds) {
  const clockid_t clock = team->count() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC;
  const double least = 50 * seconds_of(team, steps, 0, 1, clock), one = seconds_of(team, steps, n_steps, 1, clock);
  const int64_t at_once = one < least ? static_cast<int64_t>(least / (one > 1e-9 ? one : 1e-9)) + 1 : 1;
  for (int64_t r = 0; r < repeats; ++r) run_seconds[r] = seconds_of(team, steps, n_steps, at_once, clock) / static_cast<double>(at_once);
}

// Wall seconds of every step, [repeats][n_steps]: the thread's clock is a system call, too slow between steps.
extern "C" void soniq_time_steps(soniq::Team* team, const SoniqStep* steps, int64_t n_steps, int64_t repeats, double* step_seconds) {
  for (int64_t r = 0; r < repeats; ++r) {
    double before = seconds(CLOCK_MONOTONIC);
    for (int64_t i = 0; i < n_steps; ++i) {
      soniq_run(team, steps + i, 1);
      const double after = seconds(CLOCK_MONOTONIC);
      step_seconds[r * n_steps + i] = after - before;
      before = after;
    }
  }
}
