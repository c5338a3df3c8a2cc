// A whole network in one call: a list of steps over static buffers, channels last, no allocation.
// The arithmetic of every step is that of the golden evaluation (formats/network.py), operation by operation.
#include <time.h>

#include "layer.h"

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
  int64_t kernel_height, kernel_width, stride_height, stride_width;
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

namespace {

enum Kind : int64_t { kPack, kLayer, kQuantize, kCopy, kMaxPoolCodes, kMaxPool, kAveragePool, kRelu, kAdd };

void quantize_plane(const float* __restrict in, int64_t n, uint8_t* __restrict out, int64_t stride, float inverse,
                    float shift, float lo, float hi) {
  if (stride == 1) {
    for (int64_t i = 0; i < n; ++i) out[i] = soniq_code(in[i], inverse, shift, lo, hi);
  } else {
    for (int64_t i = 0; i < n; ++i) out[i * stride] = soniq_code(in[i], inverse, shift, lo, hi);
  }
}

void quantize_pixel(const SoniqQuantize& q, const float* __restrict in, uint8_t* __restrict out) {
  const float *__restrict inverse = q.inverse, *__restrict shift = q.shift, *__restrict lo = q.lo, *__restrict hi = q.hi;
  if (q.source == nullptr) {
    for (int64_t c = 0; c < q.channels; ++c) out[c] = soniq_code(in[c], inverse[c], shift[c], lo[c], hi[c]);
  } else {
    for (int64_t c = 0; c < q.channels; ++c) out[c] = soniq_code(in[q.source[c]], inverse[c], shift[c], lo[c], hi[c]);
  }
}

void quantize(const SoniqQuantize& q) {
  for (int64_t b = 0; b < q.batch; ++b) {
    const float* in = q.in + b * q.batch_stride;
    uint8_t* out = q.out + b * q.pixels * q.channels;
    if (q.pixel_stride == 1 && q.source != nullptr) {  // channels first
      for (int64_t c = 0; c < q.channels; ++c) {
        quantize_plane(in + q.source[c], q.pixels, out + c, q.channels, q.inverse[c], q.shift[c], q.lo[c], q.hi[c]);
      }
    } else {
      for (int64_t p = 0; p < q.pixels; ++p) quantize_pixel(q, in + p * q.pixel_stride, out + p * q.channels);
    }
  }
}

void copy(const SoniqCopy& s) {
  for (int64_t b = 0; b < s.batch; ++b) {
    const float* in = s.in + b * s.batch_stride;
    float* out = s.out + b * s.pixels * s.channels;
    for (int64_t p = 0; p < s.pixels; ++p) {
      for (int64_t c = 0; c < s.channels; ++c) {
        out[p * s.out_pixel_stride + c * s.out_channel_stride] = in[p * s.pixel_stride + s.source[c]];
      }
    }
  }
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

// Joins the window of one output pixel, element by element in row-major order.
template <typename T, typename Op>
void pool_window(const SoniqPool& s, const T* in, T* out) {
  __builtin_memcpy(out, in, s.channels * sizeof(T));
  for (int64_t x = 1; x < s.kernel_width; ++x) join_pixel<T, Op>(s.channels, in + x * s.channels, out);
  for (int64_t y = 1; y < s.kernel_height; ++y) {
    const T* row = in + y * s.width * s.channels;
    for (int64_t x = 0; x < s.kernel_width; ++x) join_pixel<T, Op>(s.channels, row + x * s.channels, out);
  }
}

template <typename T, typename Op>
void pool(const SoniqPool& s) {
  T* out = static_cast<T*>(s.out);
  for (int64_t b = 0; b < s.batch; ++b) {
    const T* image = static_cast<const T*>(s.in) + b * s.height * s.width * s.channels;
    for (int64_t y = 0; y < s.out_height; ++y) {
      for (int64_t x = 0; x < s.out_width; ++x, out += s.channels) {
        pool_window<T, Op>(s, image + (y * s.stride_height * s.width + x * s.stride_width) * s.channels, out);
      }
    }
  }
}

void scale(const SoniqPool& s) {
  float* out = static_cast<float*>(s.out);
  for (int64_t i = 0; i < s.batch * s.out_height * s.out_width * s.channels; ++i) out[i] = out[i] * s.scale;
}

void relu(const SoniqElementwise& s) {
  for (int64_t i = 0; i < s.size; ++i) s.out[i] = s.first[i] > 0.0f ? s.first[i] : 0.0f;
}

void add(const SoniqElementwise& s) {
  for (int64_t i = 0; i < s.size; ++i) s.out[i] = s.first[i] + s.second[i];
}

template <typename T>
const T& as(const SoniqStep& step) { return *static_cast<const T*>(step.arguments); }

void run_step(const SoniqStep& step) {
  switch (step.kind) {
    case kPack: return soniq_pack(&as<SoniqPack>(step));
    case kLayer: return soniq_layer(&as<SoniqLayer>(step));
    case kQuantize: return quantize(as<SoniqQuantize>(step));
    case kCopy: return copy(as<SoniqCopy>(step));
    case kMaxPoolCodes: return pool<uint8_t, Largest>(as<SoniqPool>(step));
    case kMaxPool: return pool<float, Largest>(as<SoniqPool>(step));
    case kAveragePool: pool<float, Sum>(as<SoniqPool>(step)); return scale(as<SoniqPool>(step));
    case kRelu: return relu(as<SoniqElementwise>(step));
    case kAdd: return add(as<SoniqElementwise>(step));
  }
}

double seconds(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

}  // namespace

extern "C" void soniq_run(const SoniqStep* steps, int64_t n_steps) {
  for (int64_t i = 0; i < n_steps; ++i) run_step(steps[i]);
}

// CPU seconds of the thread for each of `repeats` runs.
extern "C" void soniq_time_runs(const SoniqStep* steps, int64_t n_steps, int64_t repeats, double* run_seconds) {
  for (int64_t r = 0; r < repeats; ++r) {
    const double start = seconds(CLOCK_THREAD_CPUTIME_ID);
    soniq_run(steps, n_steps);
    run_seconds[r] = seconds(CLOCK_THREAD_CPUTIME_ID) - start;
  }
}

// Wall seconds of every step, [repeats][n_steps]: the thread's clock is a system call, too slow between steps.
extern "C" void soniq_time_steps(const SoniqStep* steps, int64_t n_steps, int64_t repeats, double* step_seconds) {
  for (int64_t r = 0; r < repeats; ++r) {
    double before = seconds(CLOCK_MONOTONIC);
    for (int64_t i = 0; i < n_steps; ++i) {
      run_step(steps[i]);
      const double after = seconds(CLOCK_MONOTONIC);
      step_seconds[r * n_steps + i] = after - before;
      before = after;
    }
  }
}
