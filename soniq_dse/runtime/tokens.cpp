// See tokens.h. Sums of 16 lanes are what a vector does; a sum over channels or others runs in their order, many sums side by
// side. Multiplications and additions stay apart (built without contraction), as they are in the golden evaluation.
#include "tokens.h"

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

// The one order of sums: lanes l and l + 8, then l and l + 4 ...
inline float across(const float* values) {
  float lanes[kLanes];
  __builtin_memcpy(lanes, values, sizeof lanes);
  for (int half = 8; half > 0; half /= 2)
    for (int l = 0; l < half; ++l) lanes[l] = lanes[l] + lanes[l + half];
  return lanes[0];
}

// Sum over i < n of term(first i of 16, Lanes) and of term(i, float), of which the latter does what is left over.
template <typename Term, typename One>
SONIQ_INLINE float lane_sum(int64_t n, Term&& term, One&& one) {
  Lanes total = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) total = total + term(i);
  float lanes[kLanes];
  store(lanes, total);
  for (int64_t l = 0; i + l < n; ++l) lanes[l] = lanes[l] + one(i + l);
  return across(lanes);
}

// exp of what is not positive: formats/attention.py. Adding 1.5 * 2**23 rounds to an integer, half to even, in the low bits.
SONIQ_INLINE Lanes exponentials(Lanes x) {
  const Lanes least = Lanes{} - 87.0f, magic = Lanes{} + 12582912.0f;
  const Lanes bounded = x > least ? x : least;
  const Lanes shifted = bounded * 1.44269504f + magic;
  const Lanes n = shifted - magic;
  Lanes r = bounded - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  Lanes p = Lanes{} + 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const Lanes y = p * (r * r) + r + 1.0f;
  const IntLanes power = ((IntLanes)shifted - (IntLanes)magic + 127) << 23;
  return x < least ? Lanes{} : y * (Lanes)power;
}

// Scores of R queries and the others up to `count`, whose keys lie as [channels][ld].
template <int R, int V>
SONIQ_INLINE void score_block(const float* query, int64_t ld_query, int64_t channels, const float* keys, int64_t ld, float* out) {
  Lanes sums[R][V] = {};
  for (int64_t c = 0; c < channels; ++c)
    for (int v = 0; v < V; ++v) {
      const Lanes key = load(keys + c * ld + v * kLanes);
      for (int r = 0; r < R; ++r) sums[r][v] = sums[r][v] + query[r * ld_query + c] * key;
    }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) store(out + r * ld + v * kLanes, sums[r][v]);
}

// Scores -> weights up to a whole number of vectors that holds `padded`, 0 from `count` on; gives 1 / their sum.
inline float soften(float* scores, int64_t count, int64_t padded, float scale, const float* hidden) {
  const float infinity = __builtin_inff();
  for (int64_t j = 0; j < count; ++j) scores[j] = scores[j] * scale;
  if (hidden != nullptr)
    for (int64_t j = 0; j < count; ++j) scores[j] = scores[j] + hidden[j];
  for (int64_t j = count; j < padded; ++j) scores[j] = -infinity;
  Lanes highest = load(scores);
  for (int64_t j = kLanes; j < padded; j += kLanes) {
    const Lanes v = load(scores + j);
    highest = v > highest ? v : highest;
  }
  float most = highest[0];
  for (int l = 1; l < kLanes; ++l) most = highest[l] > most ? highest[l] : most;
  Lanes total = {};
  for (int64_t j = 0; j < padded; j += kLanes) {
    const Lanes weight = exponentials(load(scores + j) - most);
    store(scores + j, weight);
    total = total + weight;
  }
  float lanes[kLanes];
  store(lanes, total);
  return 1.0f / across(lanes);
}

// Values of the others weighed for R queries, V vectors of channels, of which `channels` are wanted.
template <int R, int V>
SONIQ_INLINE void mix_block(const float* weights, int64_t ld, int64_t others, const float* values, int64_t ld_values,
                            const float* inverse, float* out, int64_t channels) {
  Lanes sums[R][V] = {};
  for (int64_t j = 0; j < others; ++j)
    for (int v = 0; v < V; ++v) {
      const Lanes value = load(values + j * ld_values + v * kLanes);
      for (int r = 0; r < R; ++r) sums[r][v] = sums[r][v] + weights[r * ld + j] * value;
    }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) {
      const Lanes mixed = sums[r][v] * inverse[r];
      __builtin_memcpy(out + r * ld_values + v * kLanes, &mixed, smaller(channels - v * kLanes, kLanes) * sizeof(float));
    }
}

struct Head {  // of one sample
  const SoniqAttention& s;
  const float *query, *value;
  float* out;
  int64_t channels, ld, past;  // ld: others, in whole vectors
  const float* keys;
  float* scores;
  const float* hidden;

  // R queries from number `first` on.
  template <int R>
  void rows(int64_t first) const {
    const int64_t most = s.causal ? past + first + R : s.others, padded = round_up(most);
    const float* of_rows = query + first * s.channels;
    int64_t j = 0;
    for (; j + 2 * kLanes <= padded; j += 2 * kLanes)
      score_block<R, 2>(of_rows, s.channels, channels, keys + j, ld, scores + j);
    for (; j < padded; j += kLanes) score_block<R, 1>(of_rows, s.channels, channels, keys + j, ld, scores + j);
    float inverse[R];
    for (int r = 0; r < R; ++r)
      inverse[r] = soften(scores + r * ld, s.causal ? past + first + r + 1 : s.others, padded, s.scale, hidden);
    float* to = out + first * s.channels;
    int64_t c = 0;
    for (; c + 2 * kLanes <= channels; c += 2 * kLanes)
      mix_block<R, 2>(scores, ld, most, value + c, s.channels, inverse, to + c, 2 * kLanes);
    for (; c < channels; c += kLanes)
      mix_block<R, 1>(scores, ld, most, value + c, s.channels, inverse, to + c, smaller(channels - c, kLanes));
  }
};

constexpr int kRows = 4;

// Keys of a head [others][ld_key] -> [channels][ld], 0 behind the others.
void transpose_keys(const float* key, int64_t ld_key, int64_t others, int64_t channels, float* keys, int64_t ld) {
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t j = 0; j < others; ++j) keys[c * ld + j] = key[j * ld_key + c];
    for (int64_t j = others; j < ld; ++j) keys[c * ld + j] = 0.0f;
  }
}

void attend(const SoniqAttention& s, int64_t sample, int64_t head, float* scratch) {
  const int64_t channels = s.channels / s.heads, ld = round_up(s.others), at_value = sample * s.others * s.channels + head * channels;
  float *own_keys = scratch, *hidden = own_keys + channels * ld, *scores = hidden + ld;
  const float* keys = own_keys;
  if (s.kept_keys != nullptr)
    keys = s.kept_keys + (sample * s.channels + head * channels) * ld;
  else
    transpose_keys(s.key + at_value, s.channels, s.others, channels, own_keys, ld);
  if (s.numbers != nullptr) {
    const int32_t* numbers = s.numbers + sample * s.ld_numbers;
    for (int64_t j = 0; j < s.others; ++j) hidden[j] = numbers[j] == s.hidden_token ? s.hidden : 0.0f;
  }
  const int64_t at = sample * s.tokens * s.channels + head * channels, past = s.position == nullptr ? 0 : *s.position;
  const Head one = {s,  s.query + at, s.value + at_value, s.out + at, channels, ld, past, keys, scores,
                    s.numbers != nullptr ? hidden : nullptr};
  int64_t i = 0;
  for (; i + kRows <= s.tokens; i += kRows) one.rows<kRows>(i);
  for (; i < s.tokens; ++i) one.rows<1>(i);
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

void soniq_layer_norm(const SoniqLayerNorm& s, SoniqShare share) {
  const int64_t n = s.channels;
  for (int64_t row = share.begin(s.rows); row < share.end(s.rows); ++row) {
    const float* __restrict in = s.in + row * n;
    float* __restrict out = s.out + row * n;
    const float mean = lane_sum(n, [&](int64_t i) { return load(in + i); }, [&](int64_t i) { return in[i]; }) * s.share;
    for (int64_t i = 0; i < n; ++i) out[i] = in[i] - mean;
    const float squares = lane_sum(
        n, [&](int64_t i) { return load(out + i) * load(out + i); }, [&](int64_t i) { return out[i] * out[i]; });
    const float inverse = 1.0f / __builtin_sqrtf(squares * s.share + s.eps);
    const float *__restrict gain = s.gain, *__restrict bias = s.bias;
    for (int64_t i = 0; i < n; ++i) out[i] = out[i] * inverse * gain[i] + bias[i];
  }
}

void soniq_keep(const SoniqKeep& s, SoniqShare share) {
  const int64_t first = s.position == nullptr ? 0 : *s.position, ld = round_up(s.others), of_head = s.channels / s.heads;
  const int64_t heads = s.batch * s.heads;
  for (int64_t at = share.begin(heads); at < share.end(heads); ++at) {
    const int64_t from = at / s.heads * s.tokens * s.channels + at % s.heads * of_head;
    float* keys = s.keys + at * of_head * ld + first;
    float* values = s.values + (at / s.heads * s.others + first) * s.channels + at % s.heads * of_head;
    for (int64_t c = 0; c < of_head; ++c)
      for (int64_t t = 0; t < s.tokens; ++t) keys[c * ld + t] = s.key[from + t * s.channels + c];
    for (int64_t t = 0; t < s.tokens; ++t)
      __builtin_memcpy(values + t * s.channels, s.value + from + t * s.channels, of_head * sizeof(float));
  }
}

void soniq_attention(const SoniqAttention& s, SoniqShare share) {
  float* scratch = s.scratch + share.index * s.scratch_floats;
  const int64_t heads = s.batch * s.heads;
  for (int64_t at = share.begin(heads); at < share.end(heads); ++at) attend(s, at / s.heads, at % s.heads, scratch);
}
