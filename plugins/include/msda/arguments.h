// Multi-scale deformable attention: the sizes and buffers of one call, shared by every lowering and by the C interface.
#pragma once

#include <stdint.h>

namespace msda {

constexpr int kMaxLevels = 8;
constexpr int kMaxPoints = 16;
constexpr int kMaxSamples = kMaxLevels * kMaxPoints;

// Head sizes are multiples of this, so rows are addressed in groups of so many elements: a 32-bit group index
// then reaches 2^34 elements inside one frame, and frames themselves are addressed with 64 bits.
constexpr int kGroup = 8;

// fp32 pixel coordinates are exact up to here; wider levels are refused.
constexpr int64_t kMaxExtent = int64_t{1} << 24;

enum class DataType : int32_t { kFloat32 = 0, kFloat16 = 1, kBFloat16 = 2 };

// A plain C layout: devil.plugins fills it through ctypes.
struct Arguments {
  const void* value;              // [batch, tokens, heads, head_size]
  const int64_t* spatial_shapes;  // [levels, 2], height then width
  const float* locations;         // [batch, queries, heads, levels, points, 2], x then y, 0-1 over the level
  const void* weights;            // [batch, queries, heads, levels, points]
  void* output;                   // [batch, queries, heads * head_size], of the value's type
  int64_t batch;
  int64_t tokens;
  int64_t queries;
  int32_t heads;
  int32_t head_size;
  int32_t levels;
  int32_t points;
  DataType value_type;
  DataType weight_type;
};

}  // namespace msda
