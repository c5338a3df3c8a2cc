// Samples (raw fp32, or int32 token numbers) from standard input, outputs (fp32) to standard output, one behind the other.
#include <stdio.h>

#include "soniq_net.h"

int main() {
  static soniq_in in[SONIQ_IN_SIZE];
  static float out[SONIQ_OUT_SIZE];
  for (;;) {
    const size_t got = fread(in, sizeof(soniq_in), SONIQ_IN_SIZE, stdin);
    if (got == 0) return 0;
    if (got != SONIQ_IN_SIZE) {
      fprintf(stderr, "input: expected samples of %d numbers, got %zu of the last one\n", SONIQ_IN_SIZE, got);
      return 1;
    }
    const int failed = soniq_run(in, out, 1);
    if (failed) {
      fprintf(stderr, "soniq_run: expected 0, got %d; soniq_net.h says what that means\n", failed);
      return 1;
    }
    if (fwrite(out, sizeof(float), SONIQ_OUT_SIZE, stdout) != SONIQ_OUT_SIZE) return 1;
  }
}
