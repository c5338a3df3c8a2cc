// See tokens.h. Sums of 16 lanes are what a vector does; a sum over channels or others runs in their order, many sums side by
// side. Multiplications and additions stay apart (built without contraction), as they are in the golden evaluation.
#include "tokens.h"

#if defined(__AVX512F__)
#include <immintrin.h>
// gcc 12 takes the deliberately undefined operands inside its own intrinsics for mistakes of ours.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#define SONIQ_INLINE inline __attribute__((always_inline))

namespace {

constexpr int64_t kLanes = 16;
typedef float Lanes __attribute__((vector_size(64)));
typedef uint32_t IntLanes __attribute__((vector_size(64)));

SONIQ_INLINE Lanes load(const float* from) {
  Lanes v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}
SONIQ_INLINE void store(float* to, Lanes v) { __builtin_memcpy(to, &v, sizeof v); }
inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t round_up(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

SONIQ_INLINE Lanes larger(Lanes a, Lanes b) {
#if defined(__AVX512F__)
  return _mm512_max_ps(a, b);
#else
  return a > b ? a : b;
#endif
}

// A number times a vector. As an operand in memory it is broadcast by the load: an instruction of its own for that takes from
// Zen 4's additions.
SONIQ_INLINE Lanes times(const float* number, Lanes v) {
#if defined(__AVX512F__)
  Lanes product;
  asm("vmulps %2%{1to16%}, %1, %0" : "=v"(product) : "v"(v), "m"(*number));
  return product;
#else
  return *number * v;
#endif
}

// Joins lanes l and l + 8, then l and l + 4 ...: the one order of sums.
template <typename Join>
SONIQ_INLINE float across(Lanes v, Join&& join) {
  v = join(v, __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
  v = join(v, __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3));
  v = join(v, __builtin_shufflevector(v, v, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1));
  v = join(v, __builtin_shufflevector(v, v, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0));
  return v[0];
}
SONIQ_INLINE float sum_of(Lanes v) {
  return across(v, [](Lanes a, Lanes b) { return a + b; });
}

// Sums over n values of each of R rows: of the values or of their squares. The rows' chains of additions run side by side.
template <int R, bool kSquares>
SONIQ_INLINE void row_sums(int64_t n, const float* in, int64_t ld, float* sums) {
  Lanes totals[R] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int r = 0; r < R; ++r) {
      const Lanes v = load(in + r * ld + i);
      totals[r] = totals[r] + (kSquares ? v * v : v);
    }
  for (int r = 0; r < R; ++r) {
    float lanes[kLanes];
    store(lanes, totals[r]);
    for (int64_t l = 0; i + l < n; ++l) {
      const float v = in[r * ld + i + l];
      lanes[l] = lanes[l] + (kSquares ? v * v : v);
    }
    sums[r] = sum_of(load(lanes));
  }
}

// in[r][c] -> out[c][r], 16 x 16: four rounds of interleaving the upper half of the rows with the lower.
SONIQ_INLINE void transpose(const float* in, int64_t ld_in, float* out, int64_t ld_out) {
  Lanes rows[kLanes], turned[kLanes];
  for (int r = 0; r < kLanes; ++r) rows[r] = load(in + r * ld_in);
  for (int round = 0; round < 4; ++round) {
    for (int r = 0; r < kLanes / 2; ++r) {
      const Lanes low = rows[r], high = rows[r + 8];
      turned[2 * r] = __builtin_shufflevector(low, high, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
      turned[2 * r + 1] = __builtin_shufflevector(low, high, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    }
    for (int r = 0; r < kLanes; ++r) rows[r] = turned[r];
  }
  for (int r = 0; r < kLanes; ++r) store(out + r * ld_out, rows[r]);
}

// Keeps N chains of operations abreast here; a compiler that does one after the other hides no latency.
template <int N>
SONIQ_INLINE void abreast(Lanes* v) {
#if defined(__AVX512F__)
  for (int i = 0; i < N; ++i) asm volatile("" : "+v"(v[i]));
#else
  (void)v;
#endif
}

// exp of what is not positive, N vectors side by side: formats/attention.py. Adding 1.5 * 2**23 rounds to an integer, half to
// even, in the low bits. What is below `least` gives 0 whatever the steps between make of it, so nothing bounds it first.
template <int N>
SONIQ_INLINE void exponentials(Lanes* x) {
  constexpr float coefficients[] = {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};
  const Lanes least = Lanes{} - 87.0f, magic = Lanes{} + 12582912.0f;
  Lanes r[N], p[N];
  IntLanes power[N];
  for (int i = 0; i < N; ++i) {
    const Lanes shifted = x[i] * 1.44269504f + magic, n = shifted - magic;
    power[i] = ((IntLanes)shifted - (IntLanes)magic + 127) << 23;
    r[i] = x[i] - n * 0.693359375f;
    r[i] = r[i] - n * -2.12194440e-4f;
    p[i] = Lanes{} + 1.9875691500e-4f;
  }
  for (float coefficient : coefficients) {
    for (int i = 0; i < N; ++i) p[i] = p[i] * r[i] + coefficient;
    abreast<N>(p);
  }
  for (int i = 0; i < N; ++i) {
    const Lanes y = p[i] * (r[i] * r[i]) + r[i] + 1.0f;
    x[i] = x[i] < least ? Lanes{} : y * (Lanes)power[i];
  }
}

// Scores of R queries and V vectors of others, whose keys lie as [channels][ld]; hidden: what is added to them, or null.
template <int R, int V>
SONIQ_INLINE void score_block(const float* query, int64_t ld_query, int64_t channels, const float* keys, int64_t ld, float scale,
                              const float* hidden, float* out) {
  Lanes sums[R][V] = {};
  for (int64_t c = 0; c < channels; ++c)
    for (int v = 0; v < V; ++v) {
      const Lanes key = load(keys + c * ld + v * kLanes);
      for (int r = 0; r < R; ++r) sums[r][v] = sums[r][v] + times(query + r * ld_query + c, key);
    }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) {
      const Lanes score = sums[r][v] * scale;
      store(out + r * ld + v * kLanes, hidden == nullptr ? score : score + load(hidden + v * kLanes));
    }
}

// Weights of R x V vectors in place; adds them up by rows.
template <int R, int V>
SONIQ_INLINE void weigh(float* scores, int64_t ld, const float* most, Lanes* totals) {
  Lanes weights[R * V];
  for (int i = 0; i < R * V; ++i) weights[i] = load(scores + i / V * ld + i % V * kLanes) - most[i / V];
  exponentials<R * V>(weights);
  for (int i = 0; i < R * V; ++i) {
    store(scores + i / V * ld + i % V * kLanes, weights[i]);
    totals[i / V] = totals[i / V] + weights[i];
  }
}

// R rows of scores -> weights up to a whole number of vectors, 0 from `counts` on; 1 / the sum of each.
template <int R>
SONIQ_INLINE void soften(float* scores, int64_t ld, const int64_t* counts, int64_t padded, float* inverse) {
  Lanes highest[R], totals[R] = {};
  float most[R];
  for (int r = 0; r < R; ++r) {
    for (int64_t j = counts[r]; j < padded; ++j) scores[r * ld + j] = -__builtin_inff();
    highest[r] = load(scores + r * ld);
  }
  for (int64_t j = kLanes; j < padded; j += kLanes)
    for (int r = 0; r < R; ++r) highest[r] = larger(load(scores + r * ld + j), highest[r]);
  for (int r = 0; r < R; ++r) most[r] = across(highest[r], [](Lanes a, Lanes b) { return larger(a, b); });
  constexpr int kAtOnce = R > 1 ? 1 : 4;
  int64_t j = 0;
  for (; j + kAtOnce * kLanes <= padded; j += kAtOnce * kLanes) weigh<R, kAtOnce>(scores + j, ld, most, totals);
  for (; j < padded; j += kLanes) weigh<R, 1>(scores + j, ld, most, totals);
  for (int r = 0; r < R; ++r) inverse[r] = 1.0f / sum_of(totals[r]);
}

// Values of the others weighed for R queries, V vectors of channels, of which `channels` are wanted.
template <int R, int V>
SONIQ_INLINE void mix_block(const float* weights, int64_t ld, int64_t others, const float* values, int64_t ld_values,
                            const float* inverse, float* out, int64_t ld_out, int64_t channels) {
  Lanes sums[R][V] = {};
  for (int64_t j = 0; j < others; ++j)
    for (int v = 0; v < V; ++v) {
      const Lanes value = load(values + j * ld_values + v * kLanes);
      for (int r = 0; r < R; ++r) sums[r][v] = sums[r][v] + times(weights + r * ld + j, value);
    }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) {
      float* to = out + r * ld_out + v * kLanes;
      float mixed[kLanes];
      store(mixed, sums[r][v] * inverse[r]);
      __builtin_memcpy(to, mixed, smaller(channels - v * kLanes, kLanes) * sizeof(float));
    }
}

#if defined(__AVX512F__)
constexpr int kRows = 4, kVectors = 4;  // sums of so many queries and vectors stay in registers
#else
constexpr int kRows = 4, kVectors = 2;
#endif

struct Head {  // of one sample
  const SoniqAttention& s;
  const float *query, *values;
  float* out;
  int64_t channels, ld, ld_values, past;  // ld: others, in whole vectors
  const float* keys;
  float* scores;
  const float* hidden;

  template <int R, int V>
  SONIQ_INLINE void score(const float* of_rows, int64_t j) const {
    score_block<R, V>(of_rows, s.channels, channels, keys + j, ld, s.scale, hidden == nullptr ? nullptr : hidden + j, scores + j);
  }

  // R queries from number `first` on.
  template <int R>
  void rows(int64_t first) const {
    const int64_t most = s.causal ? past + first + R : s.others, padded = round_up(most);
    const float* of_rows = query + first * s.channels;
    int64_t j = 0;
    if (R == 1)  // keys are read once, in the order in which they lie
      for (; j + 16 * kLanes <= padded; j += 16 * kLanes) score<1, 16>(of_rows, j);
    for (; j + kVectors * kLanes <= padded; j += kVectors * kLanes) score<R, kVectors>(of_rows, j);
    for (; j + 2 * kLanes <= padded; j += 2 * kLanes) score<R, 2>(of_rows, j);
    for (; j < padded; j += kLanes) score<R, 1>(of_rows, j);
    int64_t counts[R];
    float inverse[R];
    for (int r = 0; r < R; ++r) counts[r] = s.causal ? past + first + r + 1 : s.others;
    soften<R>(scores, ld, counts, padded, inverse);
    float* to = out + first * s.channels;
    int64_t c = 0;
    for (; c + kVectors * kLanes <= channels; c += kVectors * kLanes)
      mix_block<R, kVectors>(scores, ld, most, values + c, ld_values, inverse, to + c, s.channels, kVectors * kLanes);
    for (; c + 2 * kLanes <= channels; c += 2 * kLanes)
      mix_block<R, 2>(scores, ld, most, values + c, ld_values, inverse, to + c, s.channels, 2 * kLanes);
    for (; c < channels; c += kLanes)
      mix_block<R, 1>(scores, ld, most, values + c, ld_values, inverse, to + c, s.channels, smaller(channels - c, kLanes));
  }
};

// Keys of a head [others][ld_key] -> [channels][ld].
void transpose_keys(const float* key, int64_t ld_key, int64_t others, int64_t channels, float* keys, int64_t ld) {
  int64_t j = 0;
  for (; j + kLanes <= others; j += kLanes) {
    int64_t c = 0;
    for (; c + kLanes <= channels; c += kLanes) transpose(key + j * ld_key + c, ld_key, keys + c * ld + j, ld);
    for (; c < channels; ++c)
      for (int64_t l = 0; l < kLanes; ++l) keys[c * ld + j + l] = key[(j + l) * ld_key + c];
  }
  for (; j < others; ++j)
    for (int64_t c = 0; c < channels; ++c) keys[c * ld + j] = key[j * ld_key + c];
}

void attend(const SoniqAttention& s, int64_t sample, int64_t head, float* scratch) {
  const int64_t channels = s.channels / s.heads, ld = round_up(s.others), at_value = sample * s.others * s.channels + head * channels;
  float *own_keys = scratch, *hidden = own_keys + channels * ld, *scores = hidden + ld;
  const float *keys = own_keys, *values = s.value + at_value;
  if (s.kept_keys != nullptr) {
    keys = s.kept_keys + (sample * s.channels + head * channels) * ld;
    values = s.value + (sample * s.heads + head) * s.others * channels;
  } else {
    transpose_keys(s.key + at_value, s.channels, s.others, channels, own_keys, ld);
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t j = s.others; j < ld; ++j) own_keys[c * ld + j] = 0.0f;
  }
  if (s.numbers != nullptr) {
    const int32_t* numbers = s.numbers + sample * s.ld_numbers;
    for (int64_t j = 0; j < s.others; ++j) hidden[j] = numbers[j] == s.hidden_token ? s.hidden : 0.0f;
  }
  const int64_t at = sample * s.tokens * s.channels + head * channels, past = s.position == nullptr ? 0 : *s.position;
  const int64_t ld_values = s.kept_keys != nullptr ? channels : s.channels;
  const Head one = {s,    s.query + at, values, s.out + at, channels, ld, ld_values, past, keys, scores,
                    s.numbers != nullptr ? hidden : nullptr};
  int64_t i = 0;
  for (; i + kRows <= s.tokens; i += kRows) one.rows<kRows>(i);
  for (; i < s.tokens; ++i) one.rows<1>(i);
}

constexpr int kNormRows = 4;

template <int R>
void normalise(const SoniqLayerNorm& s, int64_t row) {
  const int64_t n = s.channels;
  float sums[R];
  row_sums<R, false>(n, s.in + row * n, n, sums);
  for (int r = 0; r < R; ++r) {
    const float mean = sums[r] * s.share;
    const float* __restrict in = s.in + (row + r) * n;
    float* __restrict out = s.out + (row + r) * n;
    for (int64_t i = 0; i < n; ++i) out[i] = in[i] - mean;
  }
  row_sums<R, true>(n, s.out + row * n, n, sums);
  for (int r = 0; r < R; ++r) {
    const float inverse = 1.0f / __builtin_sqrtf(sums[r] * s.share + s.eps);
    float* __restrict out = s.out + (row + r) * n;
    const float *__restrict gain = s.gain, *__restrict bias = s.bias;
    for (int64_t i = 0; i < n; ++i) out[i] = out[i] * inverse * gain[i] + bias[i];
  }
}

}  // namespace

void soniq_embedding(const SoniqEmbedding& s, SoniqShare share) {
  const int64_t rows = s.batch * s.tokens;
  for (int64_t row = share.begin(rows); row < share.end(rows); ++row) {
    const int64_t number = s.numbers[row / s.tokens * s.ld_numbers + row % s.tokens];
    const int8_t* from = s.table + number * s.channels;
    float* out = s.out + row * s.channels;
    const float scale = s.scale[number];
    for (int64_t c = 0; c < s.channels; ++c) out[c] = static_cast<float>(from[c]) * scale;
  }
}

void soniq_add_constant(const SoniqAddConstant& s, SoniqShare share) {
  const float* constant = s.constant + (s.position == nullptr ? 0 : *s.position * s.channels);
  for (int64_t b = 0; b < s.batch; ++b) {
    const float* in = s.in + b * s.size;
    float* out = s.out + b * s.size;
    for (int64_t i = share.begin(s.size); i < share.end(s.size); ++i) out[i] = in[i] + constant[i];
  }
}

void soniq_prepend(const SoniqPrepend& s, SoniqShare share) {
  for (int64_t b = 0; b < s.batch; ++b) {
    float* out = s.out + b * (s.size_rows + s.size);
    if (share.index == 0) __builtin_memcpy(out, s.rows, s.size_rows * sizeof(float));
    const int64_t begin = share.begin(s.size), end = share.end(s.size);
    __builtin_memcpy(out + s.size_rows + begin, s.in + b * s.size + begin, (end - begin) * sizeof(float));
  }
}

void soniq_layer_norm(const SoniqLayerNorm& s, SoniqShare share) {
  int64_t row = share.begin(s.rows);
  const int64_t end = share.end(s.rows);
  for (; row + kNormRows <= end; row += kNormRows) normalise<kNormRows>(s, row);
  for (; row < end; ++row) normalise<1>(s, row);
}

void soniq_keep(const SoniqKeep& s, SoniqShare share) {
  const int64_t first = s.position == nullptr ? 0 : *s.position, ld = round_up(s.others), of_head = s.channels / s.heads;
  const int64_t heads = s.batch * s.heads;
  for (int64_t at = share.begin(heads); at < share.end(heads); ++at) {
    const int64_t from = at / s.heads * s.tokens * s.channels + at % s.heads * of_head;
    transpose_keys(s.key + from, s.channels, s.tokens, of_head, s.keys + at * of_head * ld + first, ld);
    float* values = s.values + (at * s.others + first) * of_head;
    for (int64_t t = 0; t < s.tokens; ++t)
      __builtin_memcpy(values + t * of_head, s.value + from + t * s.channels, of_head * sizeof(float));
  }
}

void soniq_attention(const SoniqAttention& s, SoniqShare share) {
  float* scratch = s.scratch + share.index * s.scratch_floats;
  const int64_t heads = s.batch * s.heads;
  for (int64_t at = share.begin(heads); at < share.end(heads); ++at) attend(s, at / s.heads, at % s.heads, scratch);
}
