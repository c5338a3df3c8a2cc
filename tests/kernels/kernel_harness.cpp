// Runs kernels outside Python, on other processors and under sanitizers: kernel_harness <cases> <results>.
//
// A case is seven int64 (kernel, bytes of a code, pixels, rows, cols, taps, k), then codes [pixels][k], weights int8
// [cols][taps][k] and gather int64 [taps][rows]. A result is the raw sums, 4 bytes each, [rows][cols].
// Every buffer ends where a page that cannot be touched begins, or less than its alignment before it.
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "soniq_kernel.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, bytes)
#define ASAN_UNPOISON_MEMORY_REGION(address, bytes)
#endif

// SONIQ_KERNELS is X(symbol) X(symbol) ...
#define X(symbol) extern "C" const SoniqKernel symbol##_kernel;
SONIQ_KERNELS
#undef X
#define X(symbol) &symbol##_kernel,
static const SoniqKernel* const kernels[] = {SONIQ_KERNELS};
#undef X

namespace {

[[noreturn]] void fail(const char* what) {
  fprintf(stderr, "kernel_harness: %s\n", what);
  exit(2);
}

struct Buffer {
  Buffer(int64_t bytes, int64_t alignment) {
    const int64_t page = sysconf(_SC_PAGESIZE), pages = (bytes + alignment + page - 1) / page;
    mapped = (pages + 1) * page;
    base = static_cast<uint8_t*>(mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (base == MAP_FAILED || mprotect(base + pages * page, page, PROT_NONE) != 0) fail("no memory");
    data = base + (pages * page - bytes) / alignment * alignment;
    memset(base, 0xa5, pages * page);  // what a kernel leaves unwritten is not zero by luck
    ASAN_POISON_MEMORY_REGION(base, pages * page);
    ASAN_UNPOISON_MEMORY_REGION(data, bytes);
  }
  ~Buffer() {
    ASAN_UNPOISON_MEMORY_REGION(base, mapped);
    munmap(base, mapped);
  }
  Buffer(const Buffer&) = delete;
  uint8_t *base, *data;
  int64_t mapped;
};

void read_all(FILE* file, void* to, size_t bytes) {
  if (fread(to, 1, bytes, file) != bytes) fail("the cases are cut short");
}

void run_case(const int64_t (&head)[7], FILE* cases, FILE* results) {
  const int64_t item = head[1], pixels = head[2], rows = head[3], cols = head[4], taps = head[5], k = head[6];
  const SoniqKernel& kernel = *kernels[head[0]];
  Buffer codes(pixels * k * item, item), weights(cols * taps * k, 1), gather(taps * rows * 8, 8);
  read_all(cases, codes.data, pixels * k * item);
  read_all(cases, weights.data, cols * taps * k);
  read_all(cases, gather.data, taps * rows * 8);

  const int64_t row_bytes = (kernel.a_row_bytes(k) + 63) / 64 * 64, padded_cols = (cols + kernel.nr - 1) / kernel.nr * kernel.nr;
  Buffer packed(pixels * row_bytes, 64), panels(kernel.w_bytes(cols, taps, k), 64);
  Buffer pointers(taps * rows * 8, 8), sums(rows * padded_cols * 4, 64);
  kernel.pack_a(pixels, k, codes.data, k, packed.data, row_bytes);
  kernel.pack_w(cols, taps, k, reinterpret_cast<const int8_t*>(weights.data), panels.data);
  const uint8_t** rows_of = reinterpret_cast<const uint8_t**>(pointers.data);
  for (int64_t i = 0; i < taps * rows; i++) rows_of[i] = packed.data + reinterpret_cast<int64_t*>(gather.data)[i] * row_bytes;
  kernel.run(rows, cols, taps, k, rows_of, rows, panels.data, sums.data, padded_cols);
  for (int64_t r = 0; r < rows; r++) fwrite(sums.data + r * padded_cols * 4, 4, cols, results);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) fail("expected two files");
  FILE *cases = fopen(argv[1], "rb"), *results = fopen(argv[2], "wb");
  if (!cases || !results) fail("a file cannot be opened");
  int64_t head[7];
  while (fread(head, sizeof head, 1, cases) == 1) run_case(head, cases, results);
  return fclose(results) == 0 ? 0 : 1;
}
