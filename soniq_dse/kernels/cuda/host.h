// Runs a CUDA kernel on a CPU, exactly: one fibre per thread of a block, blocks one after another. A fibre runs until a barrier
// or a warp's collective operation, which ends when all its threads are there. `seed` permutes blocks, warps and lanes: a kernel
// whose result depends on it has a race. Static arrays stand for shared memory.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

#include <algorithm>
#include <functional>
#include <random>
#include <vector>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct dim3 {
  unsigned x, y, z;
};

using std::max;
using std::min;

namespace shim {

constexpr int kStackBytes = 64 << 10;

struct Copy {
  uint4* to;
  const uint4* from;
  unsigned group;
};

struct Fibre {
  ucontext_t context;
  std::vector<char> stack;
  dim3 thread;
  int index;
  int waits_for;  // 0 none, 1 its warp, 2 the block, 3 done
  unsigned collectives;
  unsigned groups;  // committed so far
  std::vector<Copy> copies;
};

struct Warp {
  unsigned exchange[2][32][6];
  int alive, arrived;
};

struct Block {
  std::vector<Fibre> fibres;
  std::vector<Warp> warps;
  ucontext_t scheduler;
  Fibre* current;
  dim3 block, block_dim, grid_dim;
  int alive, arrived;
  std::function<void()> body;
  void* fake_stack;
  const void* scheduler_stack;
  size_t scheduler_size;
};

static Block state;

inline void switch_to_scheduler(bool done) {
  Fibre& me = *state.current;
#if defined(__SANITIZE_ADDRESS__)
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(done ? nullptr : &fake, state.scheduler_stack, state.scheduler_size);
#endif
  swapcontext(&me.context, &state.scheduler);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, &state.scheduler_stack, &state.scheduler_size);
#endif
  (void)done;
}

inline void release(int kind, int warp) {
  for (Fibre& fibre : state.fibres)
    if (fibre.waits_for == kind && (kind == 2 || fibre.index / 32 == warp)) fibre.waits_for = 0;
}

inline void wait_for_warp() {
  Warp& warp = state.warps[state.current->index / 32];
  if (++warp.arrived == warp.alive) {
    warp.arrived = 0;
    release(1, state.current->index / 32);
    return;
  }
  state.current->waits_for = 1;
  switch_to_scheduler(false);
}

inline void wait_for_block() {
  if (++state.arrived == state.alive) {
    state.arrived = 0;
    release(2, 0);
    return;
  }
  state.current->waits_for = 2;
  switch_to_scheduler(false);
}

// An asynchronous copy happens as late as it may, so that a missing wait is seen.
inline void copy_later(uint4* to, const uint4* from) { state.current->copies.push_back({to, from, state.current->groups}); }

inline void finish_copies(unsigned left) {
  std::vector<Copy>& copies = state.current->copies;
  size_t done = 0;
  for (; done < copies.size() && copies[done].group + left < state.current->groups; ++done) *copies[done].to = *copies[done].from;
  copies.erase(copies.begin(), copies.begin() + done);
}

inline void start() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &state.scheduler_stack, &state.scheduler_size);
#endif
  state.body();
  Fibre& me = *state.current;
  me.waits_for = 3;
  if (--state.warps[me.index / 32].alive == state.warps[me.index / 32].arrived && state.warps[me.index / 32].arrived) {
    state.warps[me.index / 32].arrived = 0;
    release(1, me.index / 32);
  }
  if (--state.alive == state.arrived && state.arrived) {
    state.arrived = 0;
    release(2, 0);
  }
  switch_to_scheduler(true);
}

// What lane `from` of this warp passed to the same collective, in words.
template <class Read>
auto exchange(const unsigned* words, int n, Read read) {
  Warp& warp = state.warps[state.current->index / 32];
  auto& slots = warp.exchange[state.current->collectives++ % 2];
  for (int i = 0; i < n; ++i) slots[state.current->index % 32][i] = words[i];
  wait_for_warp();
  return read(slots);
}

inline void resume(Fibre& fibre) {
  state.current = &fibre;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&state.fake_stack, fibre.stack.data(), fibre.stack.size());
#endif
  swapcontext(&state.scheduler, &fibre.context);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(state.fake_stack, nullptr, nullptr);
#endif
}

// Returns 0, or 1 where some threads wait for others that never come.
inline int run_block(const std::vector<int>& order) {
  const int n = int(order.size());
  state.alive = n;
  state.arrived = 0;
  state.warps.assign((n + 31) / 32, Warp{});
  for (int i = 0; i < n; ++i) {
    Fibre& fibre = state.fibres[i];
    fibre.index = i;
    fibre.thread = {unsigned(i), 0, 0};
    fibre.waits_for = 0;
    fibre.collectives = fibre.groups = 0;
    fibre.copies.clear();
    ++state.warps[i / 32].alive;
    getcontext(&fibre.context);
    fibre.context.uc_stack.ss_sp = fibre.stack.data();
    fibre.context.uc_stack.ss_size = fibre.stack.size();
    fibre.context.uc_link = nullptr;
    makecontext(&fibre.context, start, 0);
  }
  while (state.alive) {
    bool moved = false;
    for (int i : order)
      if (state.fibres[i].waits_for == 0) {
        moved = true;
        resume(state.fibres[i]);
      }
    if (!moved) return 1;
  }
  return 0;
}

inline int launch(std::function<void()> body, unsigned grid_x, unsigned grid_y, int threads, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<int> order(threads), blocks(grid_x * grid_y);
  for (int i = 0; i < threads; ++i) order[i] = i;
  for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = int(i);
  if (seed) {
    std::shuffle(order.begin(), order.end(), random);
    std::shuffle(blocks.begin(), blocks.end(), random);
  }
  if (int(state.fibres.size()) < threads) state.fibres.resize(threads);
  for (Fibre& fibre : state.fibres) fibre.stack.resize(kStackBytes);
  state.body = body;
  state.block_dim = {unsigned(threads), 1, 1};
  state.grid_dim = {grid_x, grid_y, 1};
  for (int i : blocks) {
    state.block = {i % grid_x, i / grid_x, 0};
    if (run_block(order)) return 1;
  }
  return 0;
}

}  // namespace shim

#define __global__
#define __device__
#define __restrict__
#define __shared__ static
#define __launch_bounds__(...)
#define __syncthreads() shim::wait_for_block()
#define threadIdx (shim::state.current->thread)
#define blockIdx (shim::state.block)
#define gridDim (shim::state.grid_dim)
#define blockDim (shim::state.block_dim)

template <class Byte>
static inline int shim_dot4(unsigned x, unsigned y) {
  int sum = 0;
  for (int i = 0; i < 4; ++i) sum += int(Byte(x >> 8 * i)) * int(y >> 8 * i & 255);
  return sum;
}

static inline int shim_dot8(unsigned x, unsigned y) {
  int sum = 0;
  for (int i = 0; i < 32; i += 4) sum += int(x >> i & 15) * int(y >> i & 15);
  return sum;
}

static inline _Float16 shim_half(unsigned bits) {
  const uint16_t narrow = uint16_t(bits);
  _Float16 value;
  memcpy(&value, &narrow, 2);
  return value;
}

// The product is exact in double; so is the sum, short of exponents that are further apart than tests have.
static inline unsigned shim_half2(unsigned a, unsigned b, unsigned c) {
  unsigned word = 0;
  for (int i = 0; i < 32; i += 16) {
    const _Float16 sum = _Float16(double(shim_half(a >> i)) * double(shim_half(b >> i)) + double(shim_half(c >> i)));
    uint16_t narrow;
    memcpy(&narrow, &sum, 2);
    word |= unsigned(narrow) << i;
  }
  return word;
}

template <class Dot>
static inline void shim_mma(int (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2], Dot dot) {
  const unsigned words[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
  const int lane = shim::state.current->index % 32;
  shim::exchange(words, 6, [&](const unsigned (&slots)[32][6]) {
    for (int e = 0; e < 4; ++e) {
      const int row = lane / 4 + 8 * (e >> 1), column = 2 * (lane % 4) + (e & 1);
      for (int word = 0; word < 8; ++word)
        c[e] += dot(slots[row % 8 * 4 + word % 4][(row >> 3) + 2 * (word >> 2)], slots[column * 4 + word % 4][4 + (word >> 2)]);
    }
    return 0;
  });
}

static inline int __shfl_xor_sync(unsigned, int value, int mask) {
  const unsigned word = unsigned(value);
  return shim::exchange(&word, 1, [&](const unsigned (&slots)[32][6]) {
    return int(slots[(shim::state.current->index % 32) ^ mask][0]);
  });
}

static inline unsigned __ballot_sync(unsigned, int predicate) {
  const unsigned word = predicate != 0;
  return shim::exchange(&word, 1, [&](const unsigned (&slots)[32][6]) {
    unsigned mask = 0;
    for (int lane = 0; lane < 32; ++lane) mask |= slots[lane][0] << lane;
    return mask;
  });
}

static inline int __popc(unsigned x) { return __builtin_popcount(x); }

// Built without contraction.
static inline float __fmul_rn(float x, float y) { return x * y; }
static inline float __fadd_rn(float x, float y) { return x + y; }
