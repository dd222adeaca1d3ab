// Chooses and launches a kernel.
#include <algorithm>

#include "kernel_generic.cuh"
#include "kernel_head32.cuh"
#include "msda/launch.h"

namespace msda {
namespace {

constexpr int64_t kMaxGridY = 65535;  // more frames than that are looped over inside the kernels

LevelShapes level_shapes(const Arguments& a, const int64_t* host) {
  LevelShapes shapes{host == nullptr ? a.spatial_shapes : nullptr, {}, {}};
  for (int level = 0; host != nullptr && level < a.levels; ++level) {
    shapes.height[level] = static_cast<int32_t>(host[2 * level]);
    shapes.width[level] = static_cast<int32_t>(host[2 * level + 1]);
  }
  return shapes;
}

template <typename Value, typename Source>
cudaError_t launch_kernel(const Arguments& a, const Source& source, const LevelShapes& shapes, cudaStream_t stream) {
  const Sizes sizes{a.tokens, a.batch, static_cast<int32_t>(a.queries), a.heads, a.head_size,
                    a.levels, a.points, a.levels * a.points};
  const Value* value = static_cast<const Value*>(a.value);
  Value* output = static_cast<Value*>(a.output);
  const int64_t pairs = a.queries * a.heads;
  const bool head32 = a.head_size == 32;
  const int64_t work = head32 ? pairs : pairs * (a.head_size / Blend<Value>::kElements);
  const int64_t per_block = head32 ? Head32<Value>::kPairsPerBlock : kGenericThreads;
  const int64_t blocks = (work + per_block - 1) / per_block;
  if (blocks > INT32_MAX) return cudaErrorInvalidValue;
  // x runs fastest, so blocks go through one frame after the other and share its rows in the caches.
  const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(std::min(a.batch, kMaxGridY)));
  if (head32) {
    head32_kernel<Value, Source><<<grid, kHead32Threads, 0, stream>>>(value, source, shapes, sizes, output);
  } else {
    generic_kernel<Value, Source><<<grid, kGenericThreads, 0, stream>>>(value, source, shapes, sizes, output);
  }
  return cudaGetLastError();
}

template <typename Value>
cudaError_t launch_located(const Arguments& a, const LevelShapes& shapes, cudaStream_t stream) {
  const Located<Value> source{reinterpret_cast<const float2*>(a.locations), a.weights, a.weight_type == DataType::kFloat32};
  return launch_kernel<Value>(a, source, shapes, stream);
}

template <typename Value>
cudaError_t launch_fused_as(const FusedArguments& f, const LevelShapes& shapes, cudaStream_t stream) {
  const Fused<Value> source{f.reference, f.offsets, f.logits, f.reference_size == 4,
                            f.sizes.weight_type == DataType::kFloat32};
  return launch_kernel<Value>(f.sizes, source, shapes, stream);
}

}  // namespace

cudaError_t launch(const Arguments& a, const int64_t* host_shapes, cudaStream_t stream) {
  const LevelShapes shapes = level_shapes(a, host_shapes);
  switch (a.value_type) {
    case DataType::kFloat32: return launch_located<float>(a, shapes, stream);
    case DataType::kFloat16: return launch_located<__half>(a, shapes, stream);
    case DataType::kBFloat16: return launch_located<__nv_bfloat16>(a, shapes, stream);
  }
  return cudaErrorInvalidValue;
}

cudaError_t launch_fused(const FusedArguments& f, const int64_t* host_shapes, cudaStream_t stream) {
  if (f.reference_size != 2 && f.reference_size != 4) return cudaErrorInvalidValue;
  const LevelShapes shapes = level_shapes(f.sizes, host_shapes);
  switch (f.sizes.value_type) {
    case DataType::kFloat32: return launch_fused_as<float>(f, shapes, stream);
    case DataType::kFloat16: return launch_fused_as<__half>(f, shapes, stream);
    case DataType::kBFloat16: return launch_fused_as<__nv_bfloat16>(f, shapes, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace msda
