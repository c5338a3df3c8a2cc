// The network as one call: soniq_net.h. Buffers are static, so nothing is allocated after the first call.
#include "soniq_net.h"

#include <string.h>

struct Step;
namespace soniq { class Team; }

extern "C" soniq::Team* soniq_team_new(int64_t threads);
extern "C" void soniq_run_steps(soniq::Team* team, const Step* steps, int64_t n_steps);
extern const Step soniq_steps[];
extern const int64_t soniq_n_steps;
extern float *soniq_input, *soniq_output;

static inline bool is_fit(const float* in, int64_t n) {
  bool finite = true;
  for (int64_t i = 0; i < n; ++i) finite &= in[i] - in[i] == 0.0f;
  return finite;
}

static inline bool is_fit(const int32_t* in, int64_t n) {
  bool known = true;
  for (int64_t i = 0; i < n; ++i) known &= in[i] >= 0 && in[i] < SONIQ_N_TOKENS;
  return known;
}

extern "C" int soniq_run(const soniq_in* in, float* out, int64_t samples) {
  if (samples < 0 || (samples > 0 && (in == nullptr || out == nullptr))) return SONIQ_BAD_ARGUMENT;
  if (!is_fit(in, samples * SONIQ_IN_SIZE)) return SONIQ_BAD_INPUT;
  if (!SONIQ_IS_SUPPORTED) return SONIQ_NO_SUCH_PROCESSOR;
  static soniq::Team* const alone = soniq_team_new(1);
  if (alone == nullptr) return SONIQ_NO_MEMORY;
  for (int64_t i = 0; i < samples; ++i) {
    memcpy(soniq_input, in + i * SONIQ_IN_SIZE, sizeof(soniq_in) * SONIQ_IN_SIZE);
    soniq_run_steps(alone, soniq_steps, soniq_n_steps);
    memcpy(out + i * SONIQ_OUT_SIZE, soniq_output, sizeof(float) * SONIQ_OUT_SIZE);
  }
  return SONIQ_OK;
}
