// Functions of single numbers, fp32. The arithmetic is that of formats/activations.py, operation by operation.
#pragma once
#include "layer.h"

struct SoniqGelu {
  const float* in;
  float* out;
  int64_t size;
  int32_t is_tanh;
};

struct SoniqClip {  // to 0 and most
  const float* in;
  float* out;
  int64_t size;
  float most;
};

void soniq_gelu(const SoniqGelu& s, SoniqShare share);
void soniq_clip(const SoniqClip& s, SoniqShare share);
