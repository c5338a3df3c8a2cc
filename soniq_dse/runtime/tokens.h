// Steps of Transformers: what reads token numbers, norms, attention. Tensors are [batch][tokens][channels], fp32.
// The arithmetic is that of formats/normalisation.py and formats/attention.py, operation by operation.
#pragma once
#include "layer.h"

struct SoniqEmbedding {  // out[b][t] = table[numbers[b * ld_numbers + t]] * scale of that row
  const int32_t* numbers;
  int64_t batch, tokens, ld_numbers, channels;
  const int8_t* table;
  const float* scale;
  float* out;
};

struct SoniqAddConstant {  // [batch][size] + [size]
  const float *in, *constant;
  float* out;
  int64_t batch, size;
  const int64_t* position;  // of the first token: the constant is read from that row on; null: from the start
  int64_t channels;         // of a row
};

struct SoniqPrepend {  // out[b] = rows, then in[b]
  const float *in, *rows;
  float* out;
  int64_t batch, size, size_rows;  // of what is read, and of what stands before it, per sample
};

struct SoniqLayerNorm {
  const float* in;
  float* out;
  int64_t rows, channels;
  const float *gain, *bias;
  float share, eps;  // share: 1 / channels
};

// Keeps keys and values for later runs: those of `tokens` tokens become the rows from *position on.
struct SoniqKeep {
  const float *key, *value;
  int64_t batch, tokens, channels, heads, others;  // others: rows of the cache
  const int64_t* position;                         // null: 0
  float* keys;                                     // [batch][channels][others, in whole vectors]: of each head transposed
  float* values;                                   // [batch][heads][others][channels / heads]
};

struct SoniqAttention {
  const float *query, *key, *value;
  const int32_t* numbers;  // of the others, or null where none is hidden
  int64_t batch, tokens, others, channels, heads, ld_numbers;
  float scale, hidden;
  int32_t hidden_token, causal;
  const float* kept_keys;   // as SoniqKeep left them, and value too; null: key holds those of this run
  const int64_t* position;  // tokens before those of this run, which causal attention sees too; null: none
  float* out;
  float* scratch;  // of the first share; those of the others follow, each scratch_floats behind the one before
  int64_t scratch_floats;
};

void soniq_embedding(const SoniqEmbedding& s, SoniqShare share);
void soniq_add_constant(const SoniqAddConstant& s, SoniqShare share);
void soniq_prepend(const SoniqPrepend& s, SoniqShare share);
void soniq_layer_norm(const SoniqLayerNorm& s, SoniqShare share);
void soniq_keep(const SoniqKeep& s, SoniqShare share);
void soniq_attention(const SoniqAttention& s, SoniqShare share);
