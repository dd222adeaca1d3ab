// Runs CUDA kernels on the CPU, one block at a time, as the C++ that they are: every CUDA thread is a coroutine that
// stops at barriers. Enough of CUDA for this repository's kernels; arithmetic in fp16 and bf16 is CUDA's own host code.
//
// It proves the index arithmetic, the staging and the barriers (and, under a sanitizer, the bounds), not the speed.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <ucontext.h>
#include <vector_functions.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#undef __launch_bounds__
#undef __shared__
#undef __grid_constant__
#define __launch_bounds__(...)
#define __shared__ static  // one block at a time
#define __grid_constant__

namespace cuda_on_cpu {

struct Index {
  unsigned x, y, z;
};

// A set of threads that wait for each other.
struct Group {
  int members = 0, arrived = 0;
  unsigned generation = 0;
};

struct Thread {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(1 << 16);
  Index index{};
  bool done = false;
};

inline std::vector<Thread>* threads;
inline Thread* current;
inline ucontext_t scheduler;
inline Group block;
inline std::vector<Group> warps;
inline std::vector<uint32_t> exchange;  // one word per thread, for shuffles and votes
inline const std::function<void()>* body;

inline void wait(Group& group) {
  const unsigned generation = group.generation;
  if (++group.arrived == group.members) {
    group.arrived = 0;
    ++group.generation;
  }
  while (generation == group.generation) swapcontext(&current->context, &scheduler);
}

inline Group& warp() { return warps[current->index.x / 32]; }

inline void enter() {
  (*body)();
  current->done = true;
  swapcontext(&current->context, &scheduler);
}

}  // namespace cuda_on_cpu

inline cuda_on_cpu::Index blockIdx, blockDim, gridDim;
#define threadIdx (cuda_on_cpu::current->index)

namespace cuda_on_cpu {

// Runs `kernel` for every block of a grid.
inline void launch(unsigned blocks, unsigned frames, unsigned count, const std::function<void()>& kernel) {
  blockDim = {count, 1, 1};
  gridDim = {blocks, frames, 1};
  body = &kernel;
  exchange.assign(count, 0);
  for (unsigned index = 0; index < blocks * frames; ++index) {
    blockIdx = {index % blocks, index / blocks, 0};
    block = {static_cast<int>(count), 0, 0};
    warps.assign(count / 32, Group{32, 0, 0});
    std::vector<Thread> all(count);
    threads = &all;
    for (unsigned i = 0; i < count; ++i) {
      all[i].index = {i, 0, 0};
      getcontext(&all[i].context);
      all[i].context.uc_stack.ss_sp = all[i].stack.data();
      all[i].context.uc_stack.ss_size = all[i].stack.size();
      makecontext(&all[i].context, enter, 0);
    }
    for (bool running = true; running;) {
      running = false;
      for (Thread& thread : all) {
        if (thread.done) continue;
        running = true;
        current = &thread;
        swapcontext(&scheduler, &thread.context);
      }
    }
  }
}

// Every lane of the warp shows a word, and `read` sees all 32.
template <typename Value, typename Read>
auto trade(Value value, Read read) {
  std::memcpy(&exchange[current->index.x], &value, sizeof value);
  wait(warp());
  const auto result = read(&exchange[current->index.x / 32 * 32]);
  wait(warp());
  return result;
}

}  // namespace cuda_on_cpu

inline void __syncthreads() { cuda_on_cpu::wait(cuda_on_cpu::block); }
inline void __syncwarp() { cuda_on_cpu::wait(cuda_on_cpu::warp()); }

inline float __shfl_xor_sync(uint32_t, float value, int step) {
  const unsigned lane = (cuda_on_cpu::current->index.x % 32) ^ static_cast<unsigned>(step);
  return cuda_on_cpu::trade(value, [&](const uint32_t* words) {
    float result;
    std::memcpy(&result, &words[lane], sizeof result);
    return result;
  });
}

inline uint32_t __ballot_sync(uint32_t, bool vote) {
  return cuda_on_cpu::trade(static_cast<uint32_t>(vote), [](const uint32_t* words) {
    uint32_t votes = 0;
    for (unsigned lane = 0; lane < 32; ++lane) votes |= words[lane] << lane;
    return votes;
  });
}

inline int __popc(uint32_t bits) { return __builtin_popcount(bits); }
inline uint4 __ldg(const uint4* address) { return *address; }
inline float __expf_on_cpu(float value) { return std::exp(value); }
#define __expf __expf_on_cpu  // glibc has a function of that name
inline uint32_t __float_as_uint(float value) { return *reinterpret_cast<uint32_t*>(&value); }
inline float __uint_as_float(uint32_t bits) { return *reinterpret_cast<float*>(&bits); }
using std::max;
using std::min;

// One rounding, as the device's.
inline __half2 __hfma2(__half2 a, __half2 b, __half2 c) {
  const float2 x = __half22float2(a), y = __half22float2(b), z = __half22float2(c);
  return __float22half2_rn(make_float2(std::fma(x.x, y.x, z.x), std::fma(x.y, y.y, z.y)));
}
inline __nv_bfloat162 __hfma2(__nv_bfloat162 a, __nv_bfloat162 b, __nv_bfloat162 c) {
  const float2 x = __bfloat1622float2(a), y = __bfloat1622float2(b), z = __bfloat1622float2(c);
  return __float22bfloat162_rn(make_float2(std::fma(x.x, y.x, z.x), std::fma(x.y, y.y, z.y)));
}
