// Where a kernel gets its samples from: tensors of locations and weights, or offsets and logits (fused).
// Coordinates are fp32 in both.
#pragma once

#include "msda/arguments.h"
#include "msda/geometry.h"
#include "vectors.cuh"

namespace msda {

struct Level {
  int32_t height;
  int32_t width;
  uint32_t start;  // first token
};

// Spatial shapes in device memory, or by value.
struct LevelShapes {
  const int64_t* device;
  int32_t height[kMaxLevels];
  int32_t width[kMaxLevels];
};

// Sizes of a call as the kernels use them; the frame is blockIdx.y.
struct Sizes {
  int64_t tokens;
  int64_t batch;
  int32_t queries;
  int32_t heads;
  int32_t head_size;
  int32_t levels;
  int32_t points;
  int32_t samples;  // levels * points
};

struct Pixel {
  float x;
  float y;
};

// `at` counts samples over the whole call, `row` counts (frame, query), `index` is the level.
template <typename Value>
struct Located {
  static constexpr bool kSoftmax = false;
  const float2* locations;
  const void* weights;
  bool wide;  // weights are fp32, else of the value's type

  __device__ __forceinline__ float weight(int64_t at) const {
    return wide ? static_cast<const float*>(weights)[at] : to_float(static_cast<const Value*>(weights)[at]);
  }
  __device__ __forceinline__ Pixel pixel(const Sizes&, int64_t at, int64_t, int, Level level) const {
    const float2 location = locations[at];
    return {to_pixel(location.x, level.width), to_pixel(location.y, level.height)};
  }
};

template <typename Value>
struct Fused {
  static constexpr bool kSoftmax = true;
  const float* reference;
  const void* offsets;
  const void* logits;
  bool boxes;
  bool wide;  // offsets and logits are fp32, else of the value's type

  __device__ __forceinline__ float weight(int64_t at) const {
    return wide ? static_cast<const float*>(logits)[at] : to_float(static_cast<const Value*>(logits)[at]);
  }
  __device__ __forceinline__ float offset(int64_t at) const {
    return wide ? static_cast<const float*>(offsets)[at] : to_float(static_cast<const Value*>(offsets)[at]);
  }
  // In pixels at once: a point's offset is in pixels already, a box's in half box sizes per point.
  __device__ __forceinline__ Pixel pixel(const Sizes& sizes, int64_t at, int64_t row, int index, Level level) const {
    const int64_t anchor = row * sizes.levels + index;
    const float dx = offset(2 * at), dy = offset(2 * at + 1);
    if (!boxes) {
      const float2 point = reinterpret_cast<const float2*>(reference)[anchor];
      return {to_pixel(point.x, level.width) + dx, to_pixel(point.y, level.height) + dy};
    }
    const float4 box = reinterpret_cast<const float4*>(reference)[anchor];
    const float scale = 0.5f / static_cast<float>(sizes.points);
    return {to_pixel(fmaf(dx * scale, box.z, box.x), level.width),
            to_pixel(fmaf(dy * scale, box.w, box.y), level.height)};
  }
};

// What a block knows about levels, in shared memory.
struct LevelTable {
  Level levels[kMaxLevels];
  uint8_t level_of[kMaxSamples];
};

// Fills the table; all threads of the block must call it. A level that is empty, too large or past the tokens gets
// no pixels, and so do those after it: nothing is read out of bounds whatever the shapes say.
__device__ __forceinline__ void fill(LevelTable* table, const Sizes& sizes, const LevelShapes& shapes) {
  const int thread = threadIdx.x;
  for (int sample = thread; sample < sizes.samples; sample += blockDim.x) {
    table->level_of[sample] = static_cast<uint8_t>(sample / sizes.points);
  }
  if (thread < sizes.levels) {
    const int64_t height = shapes.device ? shapes.device[2 * thread] : shapes.height[thread];
    const int64_t width = shapes.device ? shapes.device[2 * thread + 1] : shapes.width[thread];
    const bool sane = height > 0 && width > 0 && height <= kMaxExtent && width <= kMaxExtent;
    table->levels[thread] = sane ? Level{static_cast<int32_t>(height), static_cast<int32_t>(width), 0} : Level{0, 0, 0};
  }
  __syncthreads();
  int64_t start = 0;
  bool valid = true;
  for (int level = 0; level <= thread && thread < sizes.levels; ++level) {
    const int64_t tokens = static_cast<int64_t>(table->levels[level].height) * table->levels[level].width;
    valid = valid && tokens > 0 && tokens <= sizes.tokens - start;
    if (level < thread && valid) start += tokens;
  }
  __syncthreads();
  if (thread < sizes.levels) {
    table->levels[thread].start = static_cast<uint32_t>(start);
    if (!valid) table->levels[thread] = Level{0, 0, 0};
  }
  __syncthreads();
}

}  // namespace msda
