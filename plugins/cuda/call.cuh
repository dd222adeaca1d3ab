// From the arguments of a call to the arguments of a kernel.
#pragma once

#include <algorithm>

#include "kernel_generic.cuh"
#include "kernel_head32.cuh"
#include "msda/launch.h"

namespace msda {

constexpr int64_t kMaxGridY = 65535;  // more frames than that are looped over inside the kernels

struct Grid {
  int64_t blocks;  // per frame
  int64_t frames;
  int threads;
};

// x runs over the blocks of a frame and y over frames. x runs fastest, so that the blocks at work share a frame's rows
// in the caches.
template <typename Value>
inline Grid grid_of(const Arguments& a) {
  const int64_t pairs = a.queries * a.heads, parts = a.head_size / Blend<Value>::kElements;
  const bool head32 = a.head_size == 32;
  const int64_t work = head32 ? pairs : pairs * parts, step = head32 ? Head32<Value>::kPairsPerBlock : kGenericThreads;
  return {(work + step - 1) / step, std::min(a.batch, kMaxGridY), head32 ? kHead32Threads : kGenericThreads};
}

inline Sizes sizes_of(const Arguments& a) {
  return {a.tokens,           a.batch, static_cast<int32_t>(a.queries), a.heads, a.head_size, a.levels, a.points,
          a.levels * a.points};
}

inline LevelShapes level_shapes(const Arguments& a, const int64_t* host) {
  LevelShapes shapes{host == nullptr ? a.spatial_shapes : nullptr, {}, {}};
  for (int level = 0; host != nullptr && level < a.levels; ++level) {
    shapes.height[level] = static_cast<int32_t>(host[2 * level]);
    shapes.width[level] = static_cast<int32_t>(host[2 * level + 1]);
  }
  return shapes;
}

template <typename Value>
inline Located<Value> source_of(const Arguments& a) {
  return {reinterpret_cast<const float2*>(a.locations), a.weights, a.weight_type == DataType::kFloat32};
}

template <typename Value>
inline Fused<Value> source_of(const FusedArguments& f) {
  return {f.reference, f.offsets, f.logits, f.reference_size == 4, f.sizes.weight_type == DataType::kFloat32};
}

}  // namespace msda
